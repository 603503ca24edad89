// The server: found, started, stopped, asked. There is at most one process.
import { homedir } from 'node:os';
import * as vscode from 'vscode';
import { ExecuteCommandRequest, State, WorkDoneProgress, type LanguageClient } from 'vscode-languageclient/node';
import { makeClient } from './client';
import { findProgram } from './find';
import type { StatusLine } from './status';

const NOT_FOUND = 'diffcode was not found: install it with pip, or name the program in diffcode.path.';
const HOW = 'How to Install';
const NAME_IT = 'Open Setting';

type Told = (message: string) => void;

export class Server {
  private client: LanguageClient | undefined;
  private turn: Promise<void> = Promise.resolve();
  private commands = 0;

  constructor(
    readonly output: vscode.LogOutputChannel,
    private readonly status: StatusLine,
    private readonly extension: string, // its identifier
  ) {}

  start(): Promise<void> {
    return this.next(() => this.begin());
  }

  stop(): Promise<void> {
    return this.next(() => this.end());
  }

  restart(): Promise<void> {
    return this.next(async () => {
      await this.end();
      await this.begin();
    });
  }

  /** The answer to a command of the server's; `told` hears how it goes. Rejects with what a person can be told. */
  async run<R>(command: string, argument?: object, token?: vscode.CancellationToken, told?: Told): Promise<R> {
    await this.turn;
    const client = this.client;
    if (client?.state !== State.Running) throw new Error(`the server does not run: ${this.status.reason}`);
    const workDoneToken = `command-${++this.commands}`;
    const heard = client.onProgress(WorkDoneProgress.type, workDoneToken, (value) => {
      if (value.message !== undefined) told?.(value.message);
    });
    try {
      const params = { command, arguments: argument ? [argument] : [], ...(told && { workDoneToken }) };
      return (await client.sendRequest(ExecuteCommandRequest.type, params, token)) as R;
    } finally {
      heard.dispose();
    }
  }

  /** The cursor has come there: if it rests, the server reads what a suggestion will need. */
  cursorAt(document: vscode.TextDocument, cursor: vscode.Position): void {
    const client = this.client;
    if (client?.state !== State.Running) return;
    const { asTextDocumentIdentifier, asPosition } = client.code2ProtocolConverter;
    const place = { textDocument: asTextDocumentIdentifier(document), position: asPosition(cursor) };
    client.sendNotification('diffcode/cursor', place).catch(() => {}); // it is not worth a word
  }

  // Starting and stopping take their turns: a setting may change while the server is being started.
  private next(step: () => Promise<void>): Promise<void> {
    this.turn = this.turn.then(step).catch((error: unknown) => {
      this.output.error(String(error));
      this.status.set('error', `the server could not be started or stopped: ${String(error)}`);
    });
    return this.turn;
  }

  private async begin(): Promise<void> {
    const path = this.search();
    if (!path) {
      this.status.set('error', NOT_FOUND);
      void this.offerHelp();
      return;
    }
    this.output.info(`starting ${path} lsp`);
    this.status.set('busy', 'the server is being started');
    const client = makeClient(path, this.output, this.status);
    client.onDidChangeState(({ newState }) => {
      if (newState === State.Stopped && this.client === client) {
        this.status.set('error', 'the server has stopped: see the log');
      }
    });
    this.client = client;
    await client.start();
  }

  private async end(): Promise<void> {
    const client = this.client;
    this.client = undefined;
    if (client?.state === State.Running) await client.stop();
    await client?.dispose();
  }

  private search(): string | undefined {
    return findProgram({
      setting: vscode.workspace.getConfiguration('diffcode').get('path', ''),
      folders: (vscode.workspace.workspaceFolders ?? []).map((folder) => folder.uri.fsPath),
      home: homedir(),
      environment: process.env,
    });
  }

  private async offerHelp(): Promise<void> {
    const answer = await vscode.window.showErrorMessage(NOT_FOUND, HOW, NAME_IT);
    if (answer === HOW) {
      await vscode.commands.executeCommand('extension.open', this.extension); // shows README.md, offline too
    } else if (answer === NAME_IT) {
      await vscode.commands.executeCommand('workbench.action.openSettings', 'diffcode.path');
    }
  }
}
