// Makes lsp/page, which the wheel carries: one script, one style sheet, one page, and the licences of what is in them.
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.env.OUT ?? join(here, "../../lsp/page");

// What the result depends on, in this order; tests/lsp/test_web.py makes the same sum.
async function sum() {
  const sources = (await readdir(join(here, "src"))).sort().map((name) => `src/${name}`);
  const hash = createHash("sha256");
  for (const name of ["build.mjs", "package-lock.json", "page.css", "page.html", ...sources]) {
    hash.update(`${name}\0`).update(await readFile(join(here, name))).update("\0");
  }
  return hash.digest("hex");
}

const made = await build({
  absWorkingDir: here,
  entryPoints: ["src/page.ts", "page.css"],
  outdir: out,
  entryNames: "page",
  bundle: true,
  minify: true,
  format: "esm",
  alias: { marked: "./src/no-markdown.ts" },
  target: ["es2022"],
  legalComments: "none",
  metafile: true,
  banner: { js: `/* Made from editors/web, sources sha256:${await sum()}. Licences: licences.txt */` },
});
await mkdir(out, { recursive: true });
await writeFile(join(out, "index.html"), await readFile(join(here, "page.html")));

const packages = new Set();
for (const path of Object.keys(made.metafile.inputs)) {
  const name = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
  if (name) packages.add(name);
}
const licences = [];
for (const name of [...packages].sort()) {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  const text = file ? (await readFile(join(folder, file), "utf8")).trim() : "(the package has no licence file)";
  licences.push(`${name} ${version} (${license})\n\n${text}\n`);
}
await writeFile(join(out, "licences.txt"), licences.join(`\n${"-".repeat(80)}\n\n`));
const size = Object.entries(made.metafile.outputs).map(([path, { bytes }]) => `${path} ${bytes}`);
console.log([...size, `${packages.size} packages`].join("\n"));
