// workspace/applyEdit: all of an edit or nothing, as one step of undo.
import { isolateHistory } from "@codemirror/commands";
import type { EditorView } from "@codemirror/view";
import { filled } from "./marks";
import { current, type Range, toOffset } from "./sync";

interface Edit {
  documentChanges: { textDocument: { uri: string; version: number | null }; edits: { range: Range; newText: string }[] }[];
}

export interface Applied {
  applied: boolean;
  failureReason?: string;
}

export function applyEdit(view: EditorView, edit: Edit): Applied {
  const here = current(view);
  const [only, ...others] = edit.documentChanges;
  if (!here || !only || others.length || only.textDocument.uri !== here.uri) {
    return { applied: false, failureReason: "the document is not the one in view" };
  }
  if (only.textDocument.version !== null && only.textDocument.version !== here.version) {
    return { applied: false, failureReason: "the document has changed" };
  }
  const { doc } = view.state;
  const changes = view.state.changes(
    only.edits.map(({ range, newText }) => ({
      from: toOffset(doc, range.start),
      to: toOffset(doc, range.end),
      insert: newText.replace(/\r\n?/g, "\n"),
    })),
  );
  const spans: { from: number; to: number }[] = [];
  changes.iterChanges((_fromA, _toA, from, to) => spans.push({ from, to }));
  view.dispatch({
    changes,
    effects: filled.of(spans),
    annotations: isolateHistory.of("full"),
    userEvent: "fill",
  });
  return { applied: true };
}
