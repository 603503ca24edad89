// Every change goes out at once, as the edit it was. The client's own `sync` sends short documents whole, from which
// the server could not tell what was typed.
import { type LSPClient, LSPPlugin } from "@codemirror/lsp-client";
import type { Text } from "@codemirror/state";
import { EditorView } from "@codemirror/view";

export interface Position {
  line: number;
  character: number;
}

export interface Range {
  start: Position;
  end: Position;
}

export function toPosition(text: Text, offset: number): Position {
  const line = text.lineAt(offset);
  return { line: line.number - 1, character: offset - line.from };
}

export function toOffset(text: Text, { line, character }: Position): number {
  const found = text.line(Math.min(line + 1, text.lines));
  return Math.min(found.from + character, found.to);
}

export function sync(client: LSPClient): void {
  for (const { file, changes, prevDoc } of client.workspace.syncFiles()) {
    const contentChanges: { range: Range; text: string }[] = [];
    changes.iterChanges((fromA, toA, _fromB, _toB, inserted) => {
      const range = { start: toPosition(prevDoc, fromA), end: toPosition(prevDoc, toA) };
      contentChanges.unshift({ range, text: inserted.toString() }); // the last first: it moves none of the others
    });
    const textDocument = { uri: file.uri, version: file.version };
    client.notification("textDocument/didChange", { textDocument, contentChanges });
  }
}

// The client and the open document's URI and version, all changes sent.
export function current(view: EditorView): { client: LSPClient; uri: string; version: number } | null {
  const plugin = LSPPlugin.get(view);
  if (!plugin?.client.connected) return null;
  sync(plugin.client);
  const file = plugin.client.workspace.getFile(plugin.uri);
  return file && { client: plugin.client, uri: plugin.uri, version: file.version };
}

export const synced = EditorView.updateListener.of((update) => {
  if (update.docChanged) current(update.view);
});
