// What a progress' messages say of a text that is being written.

const OF_SEVERAL = /^hole (\d+) of (\d+)(?:: |$)/;

export interface Report {
  hole: number; // counts from 0
  holes: number;
  line: string; // the last line of what is written so far
}

// A report's message is `hole 2 of 3: the last line`, or the line alone where there is one hole.
export function read(message: string): Report {
  const match = OF_SEVERAL.exec(message);
  if (!match) return { hole: 0, holes: 1, line: message };
  return { hole: Number(match[1]) - 1, holes: Number(match[2]), line: message.slice(match[0].length) };
}

// The lines seen so far, and one more report. It says only the last line: a line that goes on is the last one grown,
// one that was there before means that what stood behind it was taken back.
export function fold(lines: readonly string[], seen: string): readonly string[] {
  if (!seen) return lines;
  const before = lines.lastIndexOf(seen);
  if (before >= 0) return lines.slice(0, before + 1);
  const last = lines.at(-1);
  if (last === undefined) return [seen];
  const cut = seen.startsWith("…"); // a long line shows its end
  return cut || alike(last, seen) ? [...lines.slice(0, -1), seen] : [...lines, seen];
}

function alike(a: string, b: string): boolean {
  let same = 0;
  while (same < a.length && a[same] === b[same]) same++;
  return 2 * same >= Math.min(a.length, b.length);
}
