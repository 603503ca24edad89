// A connection to the server that served this page.
import { LSPClient } from "@codemirror/lsp-client";
import { type Answers, Wire } from "./wire";

export interface Status {
  state: "normal" | "busy" | "inactive" | "error";
  reason: string | null;
}

export interface Progress {
  token: string | number;
  value: {
    kind: "begin" | "report" | "end";
    title?: string;
    cancellable?: boolean;
    message?: string;
    percentage?: number;
  };
}

export interface Listener {
  answers: Answers;
  status(status: Status): void;
  progress(progress: Progress): void;
  opened(client: LSPClient): void;
  closed(): void;
}

const LONGEST = 15 * 60_000; // ms: the first fill waits for the model, which may have to be fetched

const CAPABILITIES = {
  textDocument: { inlineCompletion: {} },
  workspace: { applyEdit: true, workspaceEdit: { documentChanges: true } },
  window: { workDoneProgress: true },
  experimental: { diffcodeStatus: true },
};

export function connect(listener: Listener): void {
  const address = new URL("lsp", location.href);
  address.protocol = "ws:";
  const socket = new WebSocket(address);
  const wire = new Wire(socket, { "window/workDoneProgress/create": () => null, ...listener.answers });
  const client = new LSPClient({
    timeout: LONGEST,
    extensions: [{ clientCapabilities: CAPABILITIES }],
    notificationHandlers: {
      "diffcode/status": (_client, status: Status) => (listener.status(status), true),
      "$/progress": (_client, progress: Progress) => (listener.progress(progress), true),
    },
  });
  socket.addEventListener("open", () => listener.opened(client.connect(wire)));
  socket.addEventListener("close", () => listener.closed());
}
