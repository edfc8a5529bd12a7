// The passages behind an answer: a list, and a panel that shows one of them.

import { closest } from "./citations.js";
import { byId, make } from "./dom.js";

let opener = null;

export function sourceList(sources, citations) {
  const cited = new Set(citations.map((citation) => citation.number));
  return make("ol", { class: "sources" }, sources.map((source) => {
    const open = (event) => openPassage(source, "", event.currentTarget);
    return make("li", { value: source.number },
      make("button", { type: "button", class: "link", dir: "auto", onclick: open }, source.title || source.document || source.id),
      cited.has(source.number) ? make("span", { class: "tag" }, "cited") : null,
      make("span", { class: "note small" }, ` ${source.retriever} ${Number(source.score.toPrecision(4))}`));
  }));
}

// `claimed` is the sentence of the answer that cites it, if there is one; `from` gets the focus back.
export function openPassage(source, claimed, from) {
  const panel = byId("panel");
  const marked = claimed ? closest(source.text, claimed) : null;
  const [start, end] = marked || [0, 0];
  const text = marked
    ? [source.text.slice(0, start), make("mark", {}, source.text.slice(start, end)), source.text.slice(end)]
    : [source.text];
  panel.replaceChildren(
    make("div", { class: "head" },
      make("h2", { id: "panel-title", dir: "auto" }, `[${source.number}] ${source.title || source.document}`),
      make("button", { type: "button", onclick: closePassage, "aria-label": "Close the passage" }, "Close")),
    make("p", { class: "note small" }, "Document ", make("bdi", {}, source.document), `, characters ${source.start} to ${source.end}`),
    make("p", { class: "passage", dir: "auto" }, text),
    marked ? make("p", { class: "note small" }, "Marked is the sentence that shares most words with the one that cites it.") : null,
  );
  opener = from;
  panel.hidden = false;
  panel.focus();
}

export function closePassage() {
  const panel = byId("panel");
  if (panel.hidden) return;
  panel.hidden = true;
  if (opener && opener.isConnected) opener.focus();
  else byId("question").focus();
  opener = null;
}
