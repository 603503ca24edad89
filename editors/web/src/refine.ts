// What the model is writing, while it is writing it: the reports of a progress, in the holes and below the text.
import { type EditorState, type Range as Span, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, WidgetType } from "@codemirror/view";
import { fold, type Report } from "./fold";

const MARKER = /(?<!\?)\?\?\?(?!\?)/g;

interface Hole {
  from: number;
  to: number;
  lines: readonly string[];
}

interface Refining {
  holes: readonly Hole[];
  at: number; // which of them is being written
  fits: boolean; // whether the holes that the server speaks of are these markers: it knows others, such as `pass`
}

const begin = StateEffect.define<null>();
const told = StateEffect.define<Report>();
const end = StateEffect.define<null>();
export const refines = { begin, told, end };

export function markersIn(state: EditorState): readonly Hole[] {
  return [...state.doc.toString().matchAll(MARKER)].map(({ index }) => ({ from: index, to: index + 3, lines: [] }));
}

export const refining = StateField.define<Refining | null>({
  create: () => null,
  update(value, transaction) {
    let now = transaction.docChanged ? null : value; // a fill is over when the text changes
    for (const effect of transaction.effects) {
      if (effect.is(begin)) now = { holes: markersIn(transaction.state), at: -1, fits: false };
      else if (effect.is(end)) now = null;
      else if (effect.is(told) && now) now = after(now, effect.value);
    }
    return now;
  },
  provide: (field) =>
    EditorView.decorations.from(field, (value) => (value?.fits ? drawn(value) : Decoration.none)),
});

function after({ holes }: Refining, { hole, holes: count, line }: Report): Refining {
  const lines = (h: Hole, index: number) => (index === hole ? { ...h, lines: fold(h.lines, line) } : h);
  return { holes: holes.map(lines), at: hole, fits: holes.length === count };
}

type Stage = "waiting" | "writing" | "written";

class Written extends WidgetType {
  constructor(
    readonly text: string,
    readonly stage: Stage,
  ) {
    super();
  }

  eq(other: Written): boolean {
    return other.text === this.text && other.stage === this.stage;
  }

  toDOM(): HTMLElement {
    const span = document.createElement("span");
    this.write(span);
    return span;
  }

  // The same element, so that its animation goes on.
  updateDOM(span: HTMLElement): boolean {
    this.write(span);
    return true;
  }

  private write(span: HTMLElement): void {
    span.className = `refining ${this.stage}`;
    span.textContent = this.text;
  }
}

function drawn({ holes, at }: Refining): DecorationSet {
  const widgets: Span<Decoration>[] = holes.map(({ from, to, lines }, index) => {
    const stage = index === at ? "writing" : lines.length ? "written" : "waiting";
    return Decoration.replace({ widget: new Written(lines.join("\n") || "???", stage) }).range(from, to);
  });
  return Decoration.set(widgets);
}
