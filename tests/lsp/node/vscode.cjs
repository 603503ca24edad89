// As much of VS Code's `vscode` module as the extension and its language client use: one editor, in memory.
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { fileURLToPath, pathToFileURL } = require('node:url');

const MANIFEST = join(__dirname, '..', '..', '..', 'editors', 'vscode', 'package.json');
const { contributes } = JSON.parse(readFileSync(MANIFEST, 'utf8'));

const seen = { statuses: [], messages: [], log: [], reports: [] };
const providers = { inline: [] };
const commands = new Map();
const documents = [];
const editors = [];
const folders = [];

// ---- values

class Position {
  constructor(line, character) {
    Object.assign(this, { line, character });
  }
}

class Range {
  constructor(start, end, endLine, endCharacter) {
    const four = endLine !== undefined;
    this.start = four ? new Position(start, end) : start;
    this.end = four ? new Position(endLine, endCharacter) : end;
  }
  get isEmpty() {
    return this.start.line === this.end.line && this.start.character === this.end.character;
  }
  get active() {
    return this.end; // of a selection
  }
}

class Disposable {
  constructor(dispose) {
    this.dispose = dispose;
  }
  static from(...all) {
    return new Disposable(() => all.forEach((one) => one.dispose()));
  }
}

class EventEmitter {
  listeners = new Set();
  event = (listener, self, kept) => {
    const bound = (value) => listener.call(self, value);
    this.listeners.add(bound);
    const gone = new Disposable(() => this.listeners.delete(bound));
    kept?.push(gone);
    return gone;
  };
  fire(value) {
    for (const listener of [...this.listeners]) listener(value);
  }
  dispose() {
    this.listeners.clear();
  }
}

class CancellationTokenSource {
  #asked = new EventEmitter();
  token = { isCancellationRequested: false, onCancellationRequested: this.#asked.event };
  cancel() {
    this.token.isCancellationRequested = true;
    this.#asked.fire();
  }
  dispose() {}
}

class Uri {
  constructor(text) {
    Object.assign(this, { text, scheme: new URL(text).protocol.slice(0, -1), path: new URL(text).pathname });
  }
  get fsPath() {
    return fileURLToPath(this.text);
  }
  toString() {
    return this.text;
  }
  static parse = (text) => new Uri(text);
  static file = (path) => new Uri(pathToFileURL(path).href);
}

class TextEdit {
  constructor(range, newText) {
    Object.assign(this, { range, newText });
  }
}

class WorkspaceEdit {
  all = [];
  set(uri, edits) {
    this.all.push([uri, edits.map((edit) => (Array.isArray(edit) ? edit[0] : edit))]);
  }
}

class CodeActionKind {
  constructor(value) {
    this.value = value;
  }
  append(part) {
    return new CodeActionKind(this.value ? `${this.value}.${part}` : part);
  }
}
const KINDS = ['QuickFix', 'Refactor', 'RefactorExtract', 'RefactorInline', 'RefactorRewrite', 'Source', 'SourceOrganizeImports'];
for (const name of KINDS) CodeActionKind[name] = new CodeActionKind(name); // their true values do not matter here
CodeActionKind.Empty = new CodeActionKind('');

class InlineCompletionItem {
  constructor(insertText, range, command) {
    Object.assign(this, { insertText, range, command });
  }
}

class InlineCompletionList {
  constructor(items) {
    this.items = items;
  }
}

// ---- documents; lines end in \n here

const opened = new EventEmitter();
const changed = new EventEmitter();
const configured = new EventEmitter();
const selected = new EventEmitter();

class Document {
  version = 1;
  languageId = 'python';
  isClosed = false;
  constructor(path, text) {
    Object.assign(this, { uri: Uri.file(path), text });
  }
  getText() {
    return this.text;
  }
  positionAt(offset) {
    const lines = this.text.slice(0, offset).split('\n');
    return new Position(lines.length - 1, lines.at(-1).length);
  }
  offsetAt({ line, character }) {
    return this.text.split('\n').slice(0, line).join('\n').length + (line > 0) + character;
  }
  lineAt(line) {
    const { length } = this.text.split('\n')[line];
    return { range: new Range(line, 0, line, length) };
  }
}

function open(path, text, options = { tabSize: 4, insertSpaces: true }) {
  const document = new Document(path, text);
  const selection = new Range(0, 0, 0, 0);
  documents.push(document);
  editors.push((api.window.activeTextEditor = { document, selection, options }));
  opened.fire(document);
  return document;
}

/** Edits, all of them against the text as it is, done as one change. */
function edit(document, edits) {
  const spans = edits.map(({ range, newText }) => [document.offsetAt(range.start), document.offsetAt(range.end), range, newText]);
  spans.sort((a, b) => b[0] - a[0]);
  const contentChanges = spans.map(([start, end, range, text]) => ({ range, rangeOffset: start, rangeLength: end - start, text }));
  for (const [start, end, , text] of spans) document.text = document.text.slice(0, start) + text + document.text.slice(end);
  document.version += 1;
  changed.fire({ document, contentChanges });
}

/** Selects the first place where a text stands. */
function select(document, text) {
  const start = document.text.indexOf(text);
  editors[0].selection = new Range(document.positionAt(start), document.positionAt(start + text.length));
}

/** The cursor comes to rest at the beginning of a text. */
function rest(document) {
  selected.fire({ textEditor: { document }, selections: [new Range(0, 0, 0, 0)] });
}

async function applyEdit(whole) {
  for (const [uri, edits] of whole.all) edit(documents.find((one) => one.uri.toString() === uri.toString()), edits);
  return true;
}

// ---- settings

const { properties } = contributes.configuration;
const settings = Object.fromEntries(Object.entries(properties).map(([key, { default: value }]) => [key.slice(9), value]));

function getConfiguration(section) {
  const root = section === undefined;
  return {
    get: (key, otherwise) => (root ? { diffcode: settings }[key] : section === 'diffcode' ? settings[key] : undefined) ?? otherwise,
    inspect: (key) => ({ key, workspaceValue: undefined }),
    async update(key, value) {
      settings[key] = value;
      configured.fire({ affectsConfiguration: (name) => `diffcode.${key}`.startsWith(name) });
    },
  };
}

// ---- the window

class StatusBarItem {
  set text(text) {
    seen.statuses.push(text);
  }
  show() {}
  dispose() {}
}

const message = (kind) => async (text, ...items) => void seen.messages.push([kind, text, ...items]);
const line = (level) => (text) => void seen.log.push(`${level}: ${text}`);
const levels = Object.fromEntries(['trace', 'debug', 'info', 'warn', 'error', 'append', 'appendLine'].map((name) => [name, line(name)]));
const channel = { ...levels, logLevel: 3, onDidChangeLogLevel: new EventEmitter().event, show() {}, dispose() {} };
const never = new EventEmitter().event;

function registerCommand(name, run) {
  if (commands.has(name)) throw new Error(`command '${name}' already exists`);
  commands.set(name, run);
  return new Disposable(() => commands.delete(name));
}

function registerInline(_selector, provider) {
  providers.inline.push(provider);
  return new Disposable(() => providers.inline.splice(providers.inline.indexOf(provider), 1));
}

const nothing = () => new Disposable(() => {});
const api = {
  version: '1.91.0',
  env: { appName: 'Visual Studio Code', language: 'en' },
  commands: { registerCommand },
  languages: {
    match: (_selector, { uri }) => (uri.scheme === 'file' ? 10 : 0),
    createDiagnosticCollection: () => ({ dispose() {} }),
    registerInlineCompletionItemProvider: registerInline,
    registerCodeActionsProvider: nothing,
    registerInlayHintsProvider: nothing,
  },
  window: {
    activeTextEditor: undefined,
    visibleTextEditors: editors,
    tabGroups: { all: [], onDidChangeTabs: never },
    onDidChangeActiveTextEditor: never,
    onDidChangeVisibleTextEditors: never,
    onDidChangeTextEditorSelection: selected.event,
    createOutputChannel: () => channel,
    createStatusBarItem: () => new StatusBarItem(),
    showInformationMessage: message('information'),
    showWarningMessage: message('warning'),
    showErrorMessage: message('error'),
    showQuickPick: async (items) => control.choose(items),
    withProgress: async ({ location }, task) => {
      const report = ({ message }) => seen.reports.push([location, message]);
      return task({ report }, new CancellationTokenSource().token);
    },
  },
  workspace: {
    workspaceFolders: folders,
    textDocuments: documents,
    notebookDocuments: [],
    applyEdit,
    getConfiguration,
    onDidOpenTextDocument: opened.event,
    onDidChangeTextDocument: changed.event,
    onDidChangeConfiguration: configured.event,
  },
  StatusBarAlignment: { Right: 2 },
  ConfigurationTarget: { Global: 1, Workspace: 2 },
  ProgressLocation: { Window: 10, Notification: 15 },
  InlineCompletionTriggerKind: { Invoke: 0, Automatic: 1 },
  LogLevel: { Trace: 1, Info: 3 },
  ThemeColor: class {},
  CodeActionKind,
};
Object.assign(api, { Position, Range, Disposable, EventEmitter, CancellationTokenSource, Uri, TextEdit, WorkspaceEdit });
Object.assign(api, { InlineCompletionItem, InlineCompletionList, CancellationError: class extends Error {} });
// What the language client takes for base classes, or asks to tell when something happens.
const BASES = ['CallHierarchyItem', 'CodeAction', 'CodeLens', 'CompletionItem', 'Diagnostic', 'DocumentLink', 'InlayHint'];
for (const name of [...BASES, 'SymbolInformation', 'TypeHierarchyItem']) api[name] = class {};
const EVENTS = ['CloseTextDocument', 'SaveTextDocument', 'ChangeWorkspaceFolders'];
for (const name of [...EVENTS.map((one) => `Did${one}`), 'WillSaveTextDocument']) api.workspace[`on${name}`] = never;

const control = {
  api, seen, providers, commands, open, edit, select, rest,
  choose: () => undefined,
  begin(folder, given) {
    folders.push({ uri: Uri.file(folder), name: 'project', index: 0 });
    Object.assign(settings, given);
  },
  run: (name) => commands.get(name)(),
  icon: () => seen.statuses.at(-1)?.split(' ')[0],
};
module.exports = control;
