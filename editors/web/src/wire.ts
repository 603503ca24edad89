// One WebSocket as the language client's transport. The client refuses what a server asks of it, so those are answered
// here.
import type { Transport } from "@codemirror/lsp-client";

export type Answers = Readonly<Record<string, (params: any) => unknown>>;

const METHOD_NOT_FOUND = -32601;

export class Wire implements Transport {
  private listeners = new Set<(message: string) => void>();

  constructor(
    private readonly socket: WebSocket,
    private readonly answers: Answers,
  ) {
    socket.addEventListener("message", (event) => this.receive(event.data as string));
  }

  // What is sent into a closed connection is dropped: the page has been told of its end.
  send(message: string): void {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(message);
  }

  subscribe(listener: (message: string) => void): void {
    this.listeners.add(listener);
  }

  unsubscribe(listener: (message: string) => void): void {
    this.listeners.delete(listener);
  }

  private receive(text: string): void {
    const message = JSON.parse(text);
    if ("id" in message && "method" in message) this.answer(message);
    else for (const listener of this.listeners) listener(text);
  }

  private answer({ id, method, params }: { id: unknown; method: string; params: unknown }): void {
    const handler = this.answers[method];
    const said = handler
      ? { result: handler(params) ?? null }
      : { error: { code: METHOD_NOT_FOUND, message: `the page knows no ${method}` } };
    this.send(JSON.stringify({ jsonrpc: "2.0", id, ...said }));
  }
}
