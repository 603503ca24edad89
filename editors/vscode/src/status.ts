// The status line: what the server is about.
import * as vscode from 'vscode';

export type State = 'normal' | 'busy' | 'inactive' | 'error';

const ICONS: Record<State, string> = {
  normal: '$(wand)',
  busy: '$(loading~spin)',
  inactive: '$(circle-slash)',
  error: '$(warning)',
};

/** Says in the status bar what `diffcode/status` says. */
export class StatusLine implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem('diffcode', vscode.StatusBarAlignment.Right, 100);

  /** Why it is as it is, for a person; empty where there is nothing to say. */
  reason = '';

  constructor() {
    this.item.name = 'diffcode';
    this.item.command = 'diffcode.showStatus';
    this.set('busy', 'the server is being started');
    this.item.show();
  }

  set(state: State, reason?: string | null): void {
    this.reason = reason ?? '';
    this.item.text = `${ICONS[state] ?? ICONS.normal} diffcode`;
    this.item.tooltip = reason ? `diffcode: ${reason}` : 'diffcode';
    this.item.backgroundColor = state === 'error' ? new vscode.ThemeColor('statusBarItem.errorBackground') : undefined;
  }

  dispose(): void {
    this.item.dispose();
  }
}
