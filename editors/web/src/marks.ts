// What stands out in the text: holes, and what has just been filled in.
import { StateEffect, StateField } from "@codemirror/state";
import { Decoration, EditorView, MatchDecorator, ViewPlugin, type ViewUpdate } from "@codemirror/view";

const matcher = new MatchDecorator({ regexp: /(?<!\?)\?\?\?(?!\?)/g, decoration: Decoration.mark({ class: "hole" }) });

export const holes = ViewPlugin.fromClass(
  class {
    found;

    constructor(view: EditorView) {
      this.found = matcher.createDeco(view);
    }

    update(update: ViewUpdate): void {
      this.found = matcher.updateDeco(update, this.found);
    }
  },
  { decorations: (plugin) => plugin.found },
);

export const filled = StateEffect.define<readonly { from: number; to: number }[]>();

// It is marked until the next edit.
export const fresh = StateField.define({
  create: () => Decoration.none,
  update(marks, transaction) {
    for (const effect of transaction.effects) {
      if (!effect.is(filled)) continue;
      const mark = Decoration.mark({ class: "fresh" });
      return Decoration.set(effect.value.filter(({ from, to }) => from < to).map(({ from, to }) => mark.range(from, to)));
    }
    return transaction.docChanged ? Decoration.none : marks;
  },
  provide: (field) => EditorView.decorations.from(field),
});
