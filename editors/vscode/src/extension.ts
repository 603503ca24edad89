// The extension's beginning and end.
import * as vscode from 'vscode';
import { commandsOf } from './commands';
import { Server } from './server';
import { StatusLine } from './status';

let server: Server | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const output = vscode.window.createOutputChannel('diffcode', { log: true });
  const status = new StatusLine();
  const mine = (server = new Server(output, status, context.extension.id));
  const commands = Object.entries(commandsOf(mine)).map(([name, run]) => vscode.commands.registerCommand(name, run));
  const watch = vscode.workspace.onDidChangeConfiguration((change) => {
    if (['diffcode.path', 'diffcode.arguments'].some((key) => change.affectsConfiguration(key))) void mine.restart();
  });
  const cursor = vscode.window.onDidChangeTextEditorSelection(({ textEditor, selections: [selection, another] }) => {
    if (selection?.isEmpty && !another) mine.cursorAt(textEditor.document, selection.active);
  });
  context.subscriptions.push(output, status, watch, cursor, ...commands);
  await mine.start();
}

export async function deactivate(): Promise<void> {
  await server?.stop();
}
