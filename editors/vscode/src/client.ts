// A language client for one server process, with what the protocol's client does not do by itself.
import * as vscode from 'vscode';
import {
  InlineCompletionRequest,
  LanguageClient,
  TransportKind,
  type ClientCapabilities,
  type FeatureState,
  type LanguageClientOptions,
  type Middleware,
  type StaticFeature,
} from 'vscode-languageclient/node';
import type { State, StatusLine } from './status';

const OWN_SETTINGS = ['path', 'arguments']; // the server does not know them

/** A client for the program at `path`; not started. */
export function makeClient(path: string, output: vscode.LogOutputChannel, status: StatusLine): LanguageClient {
  const given = vscode.workspace.getConfiguration('diffcode').get<string[]>('arguments', []);
  const program = { command: path, args: ['lsp', ...given], transport: TransportKind.stdio };
  const options: LanguageClientOptions = {
    documentSelector: [{ scheme: 'file' }, { scheme: 'untitled' }],
    initializationOptions: forServer(vscode.workspace.getConfiguration().get('diffcode')),
    outputChannel: output,
    middleware,
  };
  const client = new LanguageClient('diffcode', 'diffcode', program, options);
  client.registerFeature(statusCapability);
  client.onNotification('diffcode/status', ({ state, reason }: { state: State; reason: string | null }) =>
    status.set(state, reason),
  );
  return client;
}

const statusCapability: StaticFeature = {
  fillClientCapabilities(capabilities: ClientCapabilities): void {
    capabilities.experimental = { ...(capabilities.experimental as object | undefined), diffcodeStatus: true };
  },
  initialize(): void {},
  getState: (): FeatureState => ({ kind: 'static' }),
  clear(): void {},
};

const middleware: Middleware = {
  // An empty file says nothing of how it is to be indented; the editor knows.
  sendRequest(type, params, token, next) {
    const method = typeof type === 'string' ? type : type.method;
    const indented = method === InlineCompletionRequest.method ? withIndentation(params) : params;
    return next(type, indented, token);
  },
  workspace: {
    async configuration(params, token, next) {
      const found = await next(params, token);
      return Array.isArray(found) ? found.map(forServer) : found;
    },
  },
};

function withIndentation<P>(params: P): P {
  const { uri } = (params as { textDocument: { uri: string } }).textDocument;
  const editor = vscode.window.visibleTextEditors.find((one) => one.document.uri.toString() === uri);
  if (!editor) return params;
  const { tabSize, insertSpaces } = editor.options;
  return { ...params, formattingOptions: { tabSize, insertSpaces } };
}

function forServer(section: unknown): unknown {
  if (typeof section !== 'object' || section === null) return section;
  return Object.fromEntries(Object.entries(section).filter(([key]) => !OWN_SETTINGS.includes(key)));
}
