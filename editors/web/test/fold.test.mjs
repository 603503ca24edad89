import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const made = await build({
  entryPoints: [fileURLToPath(new URL("../src/fold.ts", import.meta.url))],
  format: "esm",
  write: false,
});
const { fold, read } = await import(`data:text/javascript,${encodeURIComponent(made.outputFiles[0].text)}`);

const folded = (...seen) => seen.reduce(fold, []);

test("a message names the hole where there are several", () => {
  assert.deepEqual(read("hole 2 of 13: x = 1"), { hole: 1, holes: 13, line: "x = 1" });
  assert.deepEqual(read("hole 2 of 3"), { hole: 1, holes: 3, line: "" });
  assert.deepEqual(read("hole in one"), { hole: 0, holes: 1, line: "hole in one" });
  assert.deepEqual(read("a\nhole 1 of 2: b"), { hole: 0, holes: 1, line: "a\nhole 1 of 2: b" });
});

test("a line grows, and the next one begins", () => {
  assert.deepEqual(folded("total", "total = 0", "for value", "for value in values:", "total += value"), [
    "total = 0",
    "for value in values:",
    "total += value",
  ]);
});

test("a line is corrected in place", () => {
  assert.deepEqual(folded("return a", "return a + b", "return a - b"), ["return a - b"]);
});

test("what was taken back goes", () => {
  assert.deepEqual(folded("a = 1", "b = 2", "print(a, b)", "b = 2"), ["a = 1", "b = 2"]);
});

test("nothing yet is no line, and a long line shows its end", () => {
  assert.deepEqual(folded("", "x"), ["x"]);
  assert.deepEqual(folded("first", "y = [1, 2, 3", "… 2, 3, 4", "…3, 4, 5"), ["first", "…3, 4, 5"]);
});
