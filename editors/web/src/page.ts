// The page: an editor, what the server does for it, and what it says.
import type { LSPClient } from "@codemirror/lsp-client";
import { Compartment, type EditorState } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";
import { applyEdit } from "./apply";
import { connect, type Progress, type Status } from "./connection";
import { newState } from "./editor";
import { read } from "./fold";
import { ghostText, suggested } from "./ghost";
import { fresh, holes } from "./marks";
import { markersIn, refines, refining } from "./refine";
import { type Sample, SAMPLES } from "./samples";
import { current, synced } from "./sync";

const CANCELLED = -32800;

function element<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

const button = element<HTMLButtonElement>("fill");
const language = element<HTMLSelectElement>("language");
const status = element("status");
const news = element("news");
const spoken = element("spoken");
const again = element<HTMLButtonElement>("again");

const server = new Compartment();
let client: LSPClient | null = null;
let filling: object | null = null; // the params of the fill under way

// ---- what is said

function say(text: string, kind: "plain" | "live" | "problem" = "plain"): void {
  news.textContent = text;
  news.className = kind;
}

function showStatus({ state, reason }: Status): void {
  const words = { normal: "Ready", busy: "Working", inactive: "Not available", error: "Failed" };
  status.dataset["state"] = state;
  status.textContent = reason && reason !== "filling" ? `${words[state]}: ${reason}` : words[state];
}

interface Running {
  title: string;
  fills: boolean; // it can be stopped: so it is a fill, and its reports are what is written
}

const running = new Map<string | number, Running>();

function showProgress({ token, value }: Progress): void {
  if (value.kind === "begin") {
    const title = (value.title ?? "").replace(/^diffcode: /, "");
    running.set(token, { title, fills: value.cancellable === true });
    if (value.cancellable) view.dispatch({ effects: refines.begin.of(null) });
  }
  const { title, fills } = running.get(token) ?? { title: "", fills: false };
  if (value.kind === "end") {
    running.delete(token);
    if (news.className === "live") say(value.message ?? "");
    if (fills) view.dispatch({ effects: refines.end.of(null) });
  } else {
    const share = value.percentage === undefined ? "" : ` ${value.percentage} %`;
    say(`${title}${share}${value.message ? ` · ${value.message}` : " …"}`, "live");
    if (fills && value.message) view.dispatch({ effects: refines.told.of(read(value.message)) });
  }
}

// ---- filling

async function fill(): Promise<void> {
  const here = current(view);
  if (!here) return;
  if (filling) return here.client.cancelRequest(filling);
  const params = { command: "diffcode.fill", arguments: [{ uri: here.uri, version: here.version }] };
  setFilling(params);
  say("");
  try {
    const { applied, failureReason } = await here.client.request<unknown, { applied: boolean; failureReason?: string }>(
      "workspace/executeCommand",
      params,
    );
    const left = markersIn(view.state).length;
    if (!applied) say(`Nothing was filled: ${failureReason ?? "the edit was refused"}`, "problem");
    else if (left) say(`${left} left: the model has found nothing that fits there.`);
    else say("Filled. Undo takes it back in one step.");
  } catch (error) {
    const { code, message } = error as { code?: number; message: string };
    const nothing = markersIn(view.state).length === 0;
    if (code === CANCELLED) say("Stopped. The text is as it was.");
    else say(nothing ? "There is no hole: write ??? where code is missing." : message, "problem");
  } finally {
    if (filling === params) setFilling(null);
  }
}

function setFilling(params: object | null): void {
  filling = params;
  button.textContent = params ? "Stop" : "Fill holes";
  if (!params) view.dispatch({ effects: refines.end.of(null) });
}

// ---- the editor

const announced = EditorView.updateListener.of((update) => {
  const now = suggested(update.state);
  if (now !== suggested(update.startState)) spoken.textContent = now ? `Suggestion: ${now}. Tab accepts.` : "";
});

const abilities = [
  ghostText,
  refining,
  holes,
  fresh,
  announced,
  keymap.of([{ key: "Mod-Enter", run: () => (void fill(), true), preventDefault: true }]),
  synced,
];

function stateOf(sample: Sample): EditorState {
  return newState(sample.text, sample.mode, [server.of([]), abilities]);
}

const states = new Map(SAMPLES.map((sample) => [sample.language, stateOf(sample)]));
let sample = SAMPLES[0]!;
const view = new EditorView({ state: states.get(sample.language), parent: element("editor") });

function attach(): void {
  const plugin = client ? client.plugin(sample.uri, sample.language) : [];
  view.dispatch({ effects: server.reconfigure(plugin) });
}

function choose(name: string): void {
  if (filling) current(view)?.client.cancelRequest(filling);
  view.dispatch({ effects: [server.reconfigure([]), refines.end.of(null)] }); // closes the document for the server
  states.set(sample.language, view.state);
  sample = SAMPLES.find(({ language }) => language === name) ?? sample;
  view.setState(states.get(sample.language)!);
  attach();
  view.focus();
}

// ---- the connection

function open(): void {
  again.hidden = true;
  showStatus({ state: "busy", reason: "connecting" });
  connect({
    answers: { "workspace/applyEdit": ({ edit }) => applyEdit(view, edit) },
    status: showStatus,
    progress: showProgress,
    opened(connected) {
      client = connected;
      attach();
      button.disabled = false;
      say("");
    },
    closed() {
      client = null;
      attach();
      running.clear();
      setFilling(null);
      button.disabled = true;
      again.hidden = false;
      status.dataset["state"] = "error";
      status.textContent = "Not connected";
      say("The server has gone. If it was started again, open the address that it has printed.", "problem");
    },
  });
}

for (const { name, language: value } of SAMPLES) language.add(new Option(name, value));
language.value = sample.language;
language.addEventListener("change", () => choose(language.value));
button.addEventListener("click", () => (void fill(), view.focus()));
again.addEventListener("click", open);
open();
view.focus();
