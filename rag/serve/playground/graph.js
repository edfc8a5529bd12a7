// The graph of a pipeline, and which of its nodes run. The drawing is the server's; only shapes and texts are taken over from it.

import { make, seconds } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = new Set(["svg", "defs", "marker", "path", "rect", "text", "g", "title"]);
const ATTRIBUTES = new Set(["viewBox", "width", "height", "x", "y", "rx", "d", "text-anchor", "font-size", "font-weight", "font-family",
  "stroke-dasharray", "paint-order", "refX", "refY", "markerWidth", "markerHeight", "orient"]);
let drawn = 0;

export class Graph {
  constructor() {
    this.caption = make("figcaption", { dir: "auto" });
    this.canvas = make("div", { class: "scroll", tabindex: "0", role: "region" });
    this.list = make("ul", { class: "nodes" });
    this.root = make("figure", { class: "graph" }, this.caption, this.canvas, this.list);
    this.parts = new Map();
  }

  // `card` has `nodes`, `edges` and `svg`.
  show(card, caption) {
    this.caption.textContent = caption;
    this.canvas.setAttribute("aria-label", `Graph of ${caption}`);
    const svg = copied(card.svg, card);
    this.canvas.replaceChildren(svg || make("p", { class: "note" }, "The drawing cannot be read."));
    const groups = svg ? [...svg.children].filter((child) => child.localName === "g") : [];
    this.parts = new Map();
    this.list.replaceChildren(...card.nodes.map((node, place) => {
      const told = make("span", { class: "note" });
      this.parts.set(node.name, { group: groups[place] || null, told, runs: 0 });
      return make("li", {}, make("bdi", {}, node.name), " ", make("span", { class: "note" }, `(${node.type})`), " ", told);
    }));
  }

  clear() {
    for (const [name, part] of this.parts) {
      part.runs = 0;
      this.set(name, "", "");
    }
  }

  started(name) {
    this.set(name, "running", "▶ runs");
  }

  finished(name, time, error) {
    const part = this.parts.get(name);
    if (!part) return;
    part.runs += 1;
    const often = part.runs > 1 ? `, ${part.runs} times` : "";
    this.set(name, error ? "broken" : "done", error ? `✗ failed: ${error}` : `✓ ${seconds(time)}${often}`);
  }

  set(name, state, text) {
    const part = this.parts.get(name);
    if (!part) return;
    part.told.textContent = text;
    if (part.group) part.group.setAttribute("class", state);
  }
}

function copied(text, card) {
  const parsed = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  if (parsed.localName !== "svg") return null;
  drawn += 1;
  const svg = copy(parsed, `tip-${drawn}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", card.edges.map((edge) => `${edge.source} to ${edge.target}.${edge.port}`).join(", ") || "one node");
  return svg;
}

// Colours are the style sheet's. The arrow's tip gets a name of its own: several drawings share the page.
function copy(node, tip) {
  if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.data);
  if (node.nodeType !== Node.ELEMENT_NODE || node.namespaceURI !== SVG || !SHAPES.has(node.localName)) return null;
  const element = document.createElementNS(SVG, node.localName);
  for (const { name, value } of node.attributes) if (ATTRIBUTES.has(name)) element.setAttribute(name, value);
  if (node.localName === "marker") element.setAttribute("id", tip);
  if (node.hasAttribute("marker-end")) element.setAttribute("marker-end", `url(#${tip})`);
  for (const child of node.childNodes) {
    const own = copy(child, tip);
    if (own) element.append(own);
  }
  return element;
}
