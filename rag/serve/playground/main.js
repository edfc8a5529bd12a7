// The page: which models are asked, the key, the colours and the keyboard.

import { Failure, getJson, key } from "./client.js";
import { Column } from "./column.js";
import { byId, make } from "./dom.js";
import { Graph } from "./graph.js";
import { closePassage } from "./sources.js";
import { offerUpload } from "./upload.js";
import { Editor } from "./yaml.js";

const SCHEME = "graft-scheme";
const [first, second, compare, question, stop, problem] = ["first", "second", "compare", "question", "stop", "problem"].map(byId);
const graphs = [new Graph(), new Graph()];
const editor = new Editor(byId("editor"), (card) => (card ? graphs[0].show(card, `${named(first.value)}, edited`) : showGraph(0)));
let pipelines = new Map();
let asked = null;

// A model is a pipeline, or a pipeline with an adapter on.
function named(model) {
  return model.split(":")[0];
}

function models() {
  return compare.checked ? [first.value, second.value] : [first.value];
}

function showGraph(place) {
  const card = pipelines.get(named([first, second][place].value));
  graphs[place].root.hidden = !card || place >= models().length;
  if (!graphs[place].root.hidden) graphs[place].show(card, models()[place]);
  return card;
}

function showGraphs() {
  byId("second-choice").hidden = !compare.checked;
  const card = showGraph(0);
  if (card) editor.show(card);
  showGraph(1);
}

function fill(select, names, chosen) {
  const kept = names.includes(select.value) ? select.value : chosen;
  select.replaceChildren(...names.map((name) => make("option", { value: name, selected: name === kept }, name)));
}

async function load() {
  problem.hidden = true;
  try {
    const names = (await getJson("v1/models")).data.map((model) => model.id);
    fill(first, names, names[0]);
    fill(second, names, names[1] ?? names[0]);
    pipelines = new Map((await getJson("v1/pipelines")).data.map((card) => [card.id, card]));
    showGraphs();
    await offerUpload();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    problem.textContent = error.status === 401 && !key.get() ? "This server asks for a key: type it in above." : error.message;
    problem.hidden = false;
  }
}

async function ask() {
  const text = question.value.trim();
  if (!text || !first.value) {
    question.focus();
    return;
  }
  halt();
  const own = new AbortController();
  asked = own;
  stop.setAttribute("aria-disabled", "false");
  byId("legend").hidden = true;
  const columns = models().map((model, place) => new Column(model, graphs[place], () => { byId("legend").hidden = false; }));
  byId("columns").replaceChildren(...columns.map((column) => column.root));
  byId("answers").hidden = false;
  await Promise.all(columns.map((column) => column.ask(text, own.signal)));
  if (asked === own) halt();
}

function halt() {
  asked?.abort();
  asked = null;
  stop.setAttribute("aria-disabled", "true");
}

function dress(scheme) {
  if (scheme) document.documentElement.dataset.scheme = scheme;
  else delete document.documentElement.dataset.scheme;
}

byId("graphs").append(...graphs.map((graph) => graph.root));
byId("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
question.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
});
stop.addEventListener("click", halt);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") closePassage(); });
for (const choice of [first, second, compare]) choice.addEventListener("change", showGraphs);

byId("key").value = key.get();
byId("key").addEventListener("change", (event) => { key.set(event.target.value.trim()); load(); });

const scheme = byId("scheme");
scheme.value = localStorage.getItem(SCHEME) ?? "";
dress(scheme.value);
scheme.addEventListener("change", () => { localStorage.setItem(SCHEME, scheme.value); dress(scheme.value); });

load();
