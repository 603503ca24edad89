// The extension's bundle without VS Code: node extension.cjs BUNDLE WORKSPACE SETTINGS [FILE], the settings as JSON.
// Prints what was seen as JSON. Without a file it only begins and ends, which it does by itself only if deactivate()
// leaves nothing behind.
const Module = require('node:module');
const { readFileSync } = require('node:fs');
const vscode = require('./vscode.cjs');

const load = Module._load;
Module._load = (name, ...rest) => (name === 'vscode' ? vscode.api : load(name, ...rest));

const [bundle, folder, settings, file] = process.argv.slice(2);
const context = { subscriptions: [], extension: { id: 'diffcode.diffcode' } };
const token = new vscode.api.CancellationTokenSource().token;

async function until(found, what) {
  const failed = () => vscode.seen.log.some((line) => line.startsWith('error:'));
  for (const end = Date.now() + 20_000; Date.now() < end && !failed(); ) {
    if (await found()) return;
    await new Promise((done) => setTimeout(done, 10));
  }
  throw new Error(`waited in vain for ${what}: ${JSON.stringify(vscode.seen)}`);
}

/** What is suggested behind the last place of a text, which may be picked in the list of completions. */
async function suggested(document, after = 'return ', picked = false) {
  const start = document.text.lastIndexOf(after);
  const position = document.positionAt(start + after.length);
  const selectedCompletionInfo = picked
    ? { range: new vscode.api.Range(document.positionAt(start), position), text: after }
    : undefined;
  const asked = { triggerKind: vscode.api.InlineCompletionTriggerKind.Invoke, selectedCompletionInfo };
  const provider = vscode.providers.inline[0];
  const found = await provider.provideInlineCompletionItems(document, position, asked, token);
  return found.items.map(({ insertText, range }) => ({ insertText, range }));
}

async function session(seen) {
  const document = vscode.open(file, readFileSync(file, 'utf8'));
  await until(() => vscode.icon() === '$(wand)', 'a server that is ready');
  seen.commands = [...vscode.commands.keys()];
  seen.items = await suggested(document);
  seen.picked = await suggested(document, 'return ', true);
  vscode.edit(document, seen.items.map(({ range, insertText }) => ({ range, newText: insertText })));
  seen.accepted = document.text;
  await vscode.run('diffcode.fillFile');
  seen.filled = document.text;
  await vscode.run('diffcode.fillFile'); // nothing is left to do, and that is said
  vscode.select(document, 'double');
  vscode.choose = (items) => items.at(-1);
  await vscode.run('diffcode.varySelection');
  seen.varied = document.text;
  await vscode.run('diffcode.showStatus');
  const flat = vscode.open(`${file}.flat.py`, 'def triple(x):\n', { tabSize: 8, insertSpaces: false });
  vscode.rest(flat);
  await until(async () => (await vscode.run('diffcode.status')).read > 0, 'the server to read where the cursor is');
  seen.indented = await suggested(flat, '):');
  await vscode.run('diffcode.toggle');
  await until(() => vscode.icon() === '$(circle-slash)', 'a server that is off');
  seen.whileOff = await suggested(document);
  await vscode.run('diffcode.toggle');
  await until(() => vscode.icon() === '$(wand)', 'a server that is on again');
  await vscode.run('diffcode.restartServer');
  await until(() => vscode.icon() === '$(wand)', 'another server');
}

(async () => {
  vscode.begin(folder, JSON.parse(settings));
  const extension = require(bundle);
  await extension.activate(context);
  const seen = {};
  if (file) await session(seen);
  await extension.deactivate();
  for (const one of context.subscriptions) one.dispose();
  console.log(JSON.stringify({ ...seen, ...vscode.seen, left: [...vscode.commands.keys()] }));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
