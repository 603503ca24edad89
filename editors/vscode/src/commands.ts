// The commands of the palette and the keys. The server's own, diffcode.fill and so on, want to be told a place.
import * as vscode from 'vscode';
import { LSPErrorCodes, ResponseError } from 'vscode-languageclient/node';
import type { Server } from './server';

type Place = 'cursor' | 'lines' | 'file'; // the selection; whole lines where nothing is selected; no place at all

interface Answer {
  readonly applied?: boolean;
  readonly failureReason?: string;
}

interface Figures {
  readonly state: string;
  readonly reason: string | null;
  readonly silence: string | null;
  readonly loaded: boolean;
  readonly shown: number;
  readonly accepted: number;
  readonly suggestionMs: number;
}

/** Every command that package.json contributes. */
export function commandsOf(server: Server): Record<string, () => Promise<void>> {
  return {
    'diffcode.fillHere': () => edit(server, 'diffcode.fill', 'cursor'),
    'diffcode.fillFile': () => edit(server, 'diffcode.fill', 'file'),
    'diffcode.rewriteSelection': () => edit(server, 'diffcode.rewrite', 'lines'),
    'diffcode.varySelection': () => vary(server),
    'diffcode.repairHere': () => edit(server, 'diffcode.repair', 'cursor'),
    'diffcode.followUp': () => edit(server, 'diffcode.ripple', 'file'),
    'diffcode.reloadModel': () => reload(server),
    'diffcode.restartServer': () => server.restart(),
    'diffcode.showStatus': () => showStatus(server),
    'diffcode.toggle': toggle,
  };
}

async function edit(server: Server, command: string, place: Place, more: object = {}): Promise<void> {
  const editor = vscode.window.activeTextEditor;
  if (!editor) return;
  const { document } = editor;
  const range = placeOf(editor, place);
  const argument = { uri: document.uri.toString(), version: document.version, ...(range && { range }), ...more };
  const progress = { location: vscode.ProgressLocation.Notification, title: 'diffcode', cancellable: true };
  await told(async () => {
    const answer = await vscode.window.withProgress(progress, (notice, token) =>
      server.run<Answer | null>(command, argument, token, (message) => notice.report({ message })),
    );
    if (answer?.applied === false) throw new Error(answer.failureReason ?? 'the editor has not taken the edit');
  });
}

function placeOf({ document, selection }: vscode.TextEditor, place: Place): object | undefined {
  if (place === 'file') return undefined;
  const { start, end } =
    place === 'lines' && selection.isEmpty ? document.lineAt(selection.active.line).range : selection;
  return { start: plain(start), end: plain(end) };
}

function plain({ line, character }: vscode.Position): object {
  return { line, character };
}

let seed = 0; // asked again, something else comes

async function vary(server: Server): Promise<void> {
  const usual = vscode.workspace.getConfiguration('diffcode').get('strength', 0.3);
  const strengths = [...new Set([0.15, usual, 0.6, 1])].sort((a, b) => a - b);
  const items = strengths.map((strength) => ({
    label: `${Math.round(100 * strength)} %`,
    description: strength === usual ? 'as in the settings' : '',
    strength,
  }));
  const placeHolder = 'How much of the selection is to change?';
  const chosen = await vscode.window.showQuickPick(items, { placeHolder });
  if (chosen) {
    seed += 10;
    await edit(server, 'diffcode.vary', 'lines', { strength: chosen.strength, seed });
  }
}

async function reload(server: Server): Promise<void> {
  await told(() => server.run('diffcode.reload'));
}

async function toggle(): Promise<void> {
  const settings = vscode.workspace.getConfiguration('diffcode');
  const here = settings.inspect('enabled')?.workspaceValue !== undefined;
  const target = here ? vscode.ConfigurationTarget.Workspace : vscode.ConfigurationTarget.Global;
  await settings.update('enabled', !settings.get('enabled', true), target);
}

async function showStatus(server: Server): Promise<void> {
  const said = await server.run<Figures>('diffcode.status').then(inWords, (error: unknown) => messageOf(error));
  const enabled = vscode.workspace.getConfiguration('diffcode').get('enabled', true);
  const actions: Record<string, () => unknown> = {
    [enabled ? 'Turn Off' : 'Turn On']: toggle,
    'Restart Server': () => server.restart(),
    'Show Log': () => server.output.show(),
  };
  const chosen = await vscode.window.showInformationMessage(`diffcode: ${said}`, ...Object.keys(actions));
  if (chosen) await actions[chosen]?.();
}

function inWords(figures: Figures): string {
  const { state, reason, silence, loaded, shown, accepted, suggestionMs } = figures;
  const model = loaded ? `a suggestion takes ${suggestionMs} ms` : 'the model is not loaded yet';
  const why = silence ? `; nothing was suggested last: ${silence}` : '';
  return `${reason ?? state}; ${model}; ${accepted} of ${shown} suggestions accepted${why}`;
}

/** Whatever goes wrong is told; a wish to stop is nothing wrong. */
async function told(action: () => Promise<unknown>): Promise<void> {
  try {
    await action();
  } catch (error) {
    const stopped = error instanceof ResponseError && error.code === LSPErrorCodes.RequestCancelled;
    if (!stopped) void vscode.window.showWarningMessage(`diffcode: ${messageOf(error)}`);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
