// Suggestions at the cursor as ghost text: textDocument/inlineCompletion.
import { isolateHistory } from "@codemirror/commands";
import { type EditorState, Prec, StateEffect, StateField, type Transaction } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, keymap, ViewPlugin, type ViewUpdate, WidgetType } from "@codemirror/view";
import { current, type Range, toOffset, toPosition } from "./sync";

interface Item {
  from: number; // what is replaced: on the cursor's line, round the cursor
  to: number;
  text: string;
}

interface Suggestion {
  items: readonly Item[];
  index: number;
}

const INVOKED = 1;
const AUTOMATIC = 2; // InlineCompletionTriggerKind

const show = StateEffect.define<Suggestion | null>();

// What of an item is still to come at the cursor; null where the item does not fit in there.
function rest(item: Item, state: EditorState): string | null {
  const cursor = state.selection.main.head;
  if (!state.selection.main.empty || cursor < item.from || cursor > item.to) return null;
  const typed = state.sliceDoc(item.from, cursor);
  return item.text.startsWith(typed) && item.text.length > typed.length ? item.text.slice(typed.length) : null;
}

// The same suggestion while its own text is typed; else none.
function typedInto(suggestion: Suggestion, transaction: Transaction): Suggestion | null {
  let deletes = false;
  transaction.changes.iterChanges((from, to) => (deletes ||= to > from));
  const chosen = suggestion.items[suggestion.index];
  if (deletes || !chosen) return null;
  const moved = (item: Item): Item => ({
    from: transaction.changes.mapPos(item.from, -1),
    to: transaction.changes.mapPos(item.to, 1),
    text: item.text,
  });
  const fitting = suggestion.items.filter((item) => rest(moved(item), transaction.state) !== null);
  const index = fitting.indexOf(chosen);
  return index < 0 ? null : { items: fitting.map(moved), index };
}

export const suggestion = StateField.define<Suggestion | null>({
  create: () => null,
  update(value, transaction) {
    for (const effect of transaction.effects) if (effect.is(show)) return effect.value;
    if (!value) return null;
    if (transaction.docChanged) return typedInto(value, transaction);
    return transaction.selection ? null : value;
  },
  provide: (field) =>
    EditorView.decorations.from(field, (value) => (view) => (value ? drawn(value, view.state) : Decoration.none)),
});

class Ghost extends WidgetType {
  constructor(readonly text: string) {
    super();
  }

  eq(other: Ghost): boolean {
    return other.text === this.text;
  }

  toDOM(): HTMLElement {
    const span = document.createElement("span");
    span.className = "ghost";
    span.textContent = this.text;
    span.ariaHidden = "true"; // it is no part of the document; the page's live region says it
    return span;
  }

  ignoreEvent(): boolean {
    return false;
  }
}

function drawn({ items, index }: Suggestion, state: EditorState): DecorationSet {
  const item = items[index];
  const text = item && rest(item, state);
  if (!text) return Decoration.none;
  const cursor = state.selection.main.head;
  const behind = state.sliceDoc(cursor, item.to);
  const kept = behind !== "" && text.endsWith(behind); // a closing bracket that stands there stays there
  const shown = kept ? text.slice(0, -behind.length) : text;
  const ghost = Decoration.widget({ widget: new Ghost(shown), side: 1 }).range(cursor);
  const gone = behind && !kept ? [Decoration.mark({ class: "ghost-replaced" }).range(cursor, item.to)] : [];
  return Decoration.set([ghost, ...gone]);
}

// Asks after every edit of the user's. When to answer is the server's matter, which knows how fast somebody types.
const asker = ViewPlugin.fromClass(
  class {
    private asked: object | null = null;

    constructor(private readonly view: EditorView) {}

    update(update: ViewUpdate): void {
      if (update.docChanged || update.selectionSet) this.cancel();
      const edited = (t: Transaction) => t.isUserEvent("input") || t.isUserEvent("delete");
      if (update.docChanged && update.transactions.some(edited)) queueMicrotask(() => this.ask(AUTOMATIC));
    }

    destroy(): void {
      this.cancel();
    }

    cancel(): void {
      if (this.asked) current(this.view)?.client.cancelRequest(this.asked);
      this.asked = null;
    }

    async ask(triggerKind: number): Promise<void> {
      const { view } = this;
      const here = current(view);
      if (!here || view.composing || view.state.readOnly || !view.state.selection.main.empty) return;
      this.cancel();
      const { doc, selection, tabSize } = view.state;
      const params = {
        textDocument: { uri: here.uri, version: here.version },
        position: toPosition(doc, selection.main.head),
        context: { triggerKind },
        formattingOptions: { tabSize, insertSpaces: true },
      };
      this.asked = params;
      let found: { items: { insertText: string; range: Range }[] } | null = null;
      try {
        found = await here.client.request("textDocument/inlineCompletion", params);
      } catch {
        return; // cancelled, or the document has moved on
      }
      if (this.asked !== params) return;
      this.asked = null;
      if (view.state.doc !== doc || !view.state.selection.eq(selection)) return;
      const items = (found?.items ?? []).map(({ insertText, range }) => ({
        from: toOffset(doc, range.start),
        to: toOffset(doc, range.end),
        text: insertText.replace(/\r\n?/g, "\n"),
      }));
      view.dispatch({ effects: show.of(items.length ? { items, index: 0 } : null) });
    }
  },
);

function accept(view: EditorView): boolean {
  const shown = view.state.field(suggestion, false);
  const item = shown?.items[shown.index];
  if (!item || rest(item, view.state) === null) return false;
  view.dispatch({
    changes: { from: item.from, to: item.to, insert: item.text },
    selection: { anchor: item.from + item.text.length },
    annotations: isolateHistory.of("full"), // undo takes all of it back, and nothing else
    userEvent: "input.complete",
    scrollIntoView: true,
  });
  return true;
}

function dismiss(view: EditorView): boolean {
  view.plugin(asker)?.cancel();
  if (!view.state.field(suggestion, false)) return false;
  view.dispatch({ effects: show.of(null) });
  return true;
}

// The next suggestion; where there is no other, the server is asked for one by hand.
function next(view: EditorView): boolean {
  const shown = view.state.field(suggestion, false);
  if (shown && shown.items.length > 1) {
    view.dispatch({ effects: show.of({ ...shown, index: (shown.index + 1) % shown.items.length }) });
  } else {
    void view.plugin(asker)?.ask(INVOKED);
  }
  return true;
}

export function suggested(state: EditorState): string | null {
  const shown = state.field(suggestion, false);
  const item = shown?.items[shown.index];
  return item ? rest(item, state) : null;
}

export const ghostText = [
  suggestion,
  asker,
  Prec.highest(
    keymap.of([
      { key: "Tab", run: accept },
      { key: "Escape", run: dismiss },
      { key: "Alt-]", run: next, preventDefault: true },
    ]),
  ),
];
