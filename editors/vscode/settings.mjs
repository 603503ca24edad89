// Writes the server's settings into package.json, from lsp/settings.schema.json; the extension's own stay as they are.
// `npm run settings` runs it; tests/lsp/test_vscode.py says when it must be run.
import { readFileSync, writeFileSync } from 'node:fs';

const SCHEMA = new URL('../../lsp/settings.schema.json', import.meta.url);
const MANIFEST = new URL('package.json', import.meta.url);
const OWN = ['diffcode.path', 'diffcode.arguments'];

const schema = JSON.parse(readFileSync(SCHEMA, 'utf8'));
const manifest = JSON.parse(readFileSync(MANIFEST, 'utf8'));
const { configuration } = manifest.contributes;
const own = OWN.map((key) => [key, configuration.properties[key]]);
const servers = Object.entries(schema.properties).map(([key, value]) => [`diffcode.${key}`, value]);
configuration.properties = Object.fromEntries([...own, ...servers]);
writeFileSync(MANIFEST, `${JSON.stringify(manifest, null, 2)}\n`);
