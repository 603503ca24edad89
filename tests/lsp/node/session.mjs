// A session with the server, by the protocol's own library: a suggestion taken, holes filled, both undone, good-bye.
// Prints what came back as JSON; asserts nothing but the protocol, so that it serves a real model too.
//   node session.mjs --modules editors/vscode --file a.py --after 'return ' -- .venv/bin/diffcode lsp
// The cursor is put behind the last place where the text of --after stands.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const { values: given, positionals: command } = parseArgs({
  options: { modules: { type: 'string' }, file: { type: 'string' }, after: { type: 'string' } },
  allowPositionals: true,
});
const require = createRequire(`${resolve(given.modules)}/`);
const protocol = require('vscode-languageserver-protocol/node');
const { TextDocument } = require('vscode-languageserver-textdocument');

const CAPABILITIES = {
  textDocument: {
    inlineCompletion: {},
    codeAction: {
      codeActionLiteralSupport: { codeActionKind: { valueSet: [''] } },
      resolveSupport: { properties: ['edit'] },
      dataSupport: true,
    },
  },
  workspace: { workspaceEdit: { documentChanges: true, changeAnnotationSupport: {} }, applyEdit: true },
  experimental: { diffcodeStatus: true },
};

const began = Date.now();
const times = {};
const seconds = (name) => (times[name] = (Date.now() - began) / 1000);

const server = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
const exited = new Promise((done) => server.on('exit', (code, signal) => done(code ?? signal)));
const connection = protocol.createProtocolConnection(
  new protocol.StreamMessageReader(server.stdout),
  new protocol.StreamMessageWriter(server.stdin),
);
const statuses = [];
connection.onNotification('diffcode/status', ({ state }) => statuses.push(state));
connection.listen();

// ---- the editor's side of the document

const uri = pathToFileURL(resolve(given.file)).href;
let document = TextDocument.create(uri, 'python', 1, readFileSync(given.file, 'utf8'));

/** Does TextEdits, the last one first, and tells the server; gives the changes that undo them. */
async function change(edits) {
  const changes = edits.map(({ range, newText }) => ({ range, text: newText }));
  changes.sort((a, b) => document.offsetAt(b.range.start) - document.offsetAt(a.range.start));
  return await send(changes);
}

async function send(changes) {
  const inverse = [];
  for (const one of changes) {
    const [start, end] = [document.offsetAt(one.range.start), document.offsetAt(one.range.end)];
    const old = document.getText(one.range);
    document = TextDocument.update(document, [one], document.version + 1);
    if (one.text !== document.getText().slice(start, start + one.text.length)) throw new Error('the edit went wrong');
    const range = { start: document.positionAt(start), end: document.positionAt(start + one.text.length) };
    inverse.unshift({ range, text: old, was: end - start });
  }
  await connection.sendNotification(protocol.DidChangeTextDocumentNotification.type, {
    textDocument: { uri, version: document.version },
    contentChanges: changes.map(({ range, text }) => ({ range, text })),
  });
  return inverse;
}

/** The edits of the first action whose title begins so. */
async function resolved(title) {
  const range = { start: document.positionAt(0), end: document.positionAt(document.getText().length) };
  const context = { diagnostics: [] };
  const found = await connection.sendRequest(protocol.CodeActionRequest.type, { textDocument: { uri }, range, context });
  const chosen = found.find((action) => action.title.startsWith(title));
  if (!chosen) throw new Error(`no action begins with ${title}: ${found.map((action) => action.title)}`);
  const { edit } = await connection.sendRequest(protocol.CodeActionResolveRequest.type, chosen);
  const [{ textDocument, edits }] = edit.documentChanges;
  if (edit.documentChanges.length !== 1 || textDocument.uri !== uri || textDocument.version !== document.version) {
    throw new Error(`not one edit of this version: ${JSON.stringify(edit)}`);
  }
  return { titles: found.map((action) => action.title), title: chosen.title, edits };
}

// ---- the session

const result = await connection.sendRequest(protocol.InitializeRequest.type, {
  processId: process.pid,
  rootUri: null,
  clientInfo: { name: 'diffcode test client' },
  capabilities: CAPABILITIES,
  initializationOptions: { debounce: 0 },
});
await connection.sendNotification(protocol.InitializedNotification.type, {});
seconds('initialized');
const original = document.getText();
await connection.sendNotification(protocol.DidOpenTextDocumentNotification.type, {
  textDocument: { uri, languageId: 'python', version: 1, text: original },
});

const position = document.positionAt(original.lastIndexOf(given.after) + given.after.length);
const context = { triggerKind: protocol.InlineCompletionTriggerKind.Invoked };
const list = await connection.sendRequest(protocol.InlineCompletionRequest.type, { textDocument: { uri }, position, context });
seconds('suggested');
const [item] = list.items;
if (item) await change([{ range: item.range, newText: item.insertText }]);
const accepted = document.getText();
const figures = await connection.sendRequest(protocol.ExecuteCommandRequest.type, { command: 'diffcode.status' });

const first = await resolved('Fill all');
seconds('filled');
const undo = await change(first.edits);
const filled = document.getText();
await send(undo);
const undone = document.getText();
const again = await resolved('Fill all'); // the server's text is ours, or this would be another edit

await connection.sendRequest(protocol.ShutdownRequest.type);
await connection.sendNotification(protocol.ExitNotification.type);
const exitCode = await exited;
seconds('ended');

console.log(
  JSON.stringify({
    server: result.serverInfo,
    statuses,
    suggestion: item?.insertText ?? null,
    figures,
    titles: first.titles,
    fill: first.title,
    texts: { original, accepted, filled, undone },
    sameAgain: JSON.stringify(again) === JSON.stringify(first),
    exitCode,
    seconds: times,
  }),
);
process.exit(0);
