// Where src/find.ts finds the program: node find.mjs FOLDER-OF-THE-EXTENSION < surroundings as a JSON list.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [folder] = process.argv.slice(2);
const require = createRequire(join(folder, 'package.json'));
const source = readFileSync(join(folder, 'src', 'find.ts'), 'utf8');
const { code } = require('esbuild').transformSync(source, { loader: 'ts', format: 'cjs' });
const module = { exports: {} };
new Function('module', 'exports', 'require', code)(module, module.exports, require);
console.log(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map((one) => module.exports.findProgram(one) ?? null)));
