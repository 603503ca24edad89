// Tells the server where the cursor comes to rest: it reads what stands there, and the first suggestion comes sooner.
import * as vscode from 'vscode';
import type { Server } from './server';

const REST = 100; // milliseconds

export class CursorWatch implements vscode.Disposable {
  private timer: NodeJS.Timeout | undefined;
  private readonly watch: vscode.Disposable;

  constructor(server: Server) {
    this.watch = vscode.window.onDidChangeTextEditorSelection(({ textEditor, selections }) => {
      clearTimeout(this.timer);
      const [selection, ...others] = selections;
      if (!selection?.isEmpty || others.length > 0) return;
      this.timer = setTimeout(() => server.cursorAt(textEditor.document, selection.active), REST);
    });
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.watch.dispose();
  }
}
