"use strict";
// As much of a document as the report's script needs. Reads the report's data and script as JSON on stdin, runs the script, chooses the
// first question, and prints what a reader would find: tags, attributes, texts and ids, as JSON.

class Node {
  constructor(tag) {
    Object.assign(this, { tag, attributes: {}, children: [], listeners: {}, text: null, clientWidth: 320 });
  }
  setAttribute(name, value) { this.attributes[name] = value; }
  removeAttribute(name) { delete this.attributes[name]; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  appendChild(child) { this.children.push(child); return child; }
  replaceChildren(...children) {
    if (!children.every((child) => child instanceof Node)) throw new Error("a child that is no node");
    this.children = children;
  }
  focus() { document.activeElement = this; }
  set textContent(text) { this.children = [document.createTextNode(text)]; }
  get textContent() { return this.text === null ? this.children.map((child) => child.textContent).join("") : this.text; }
  get all() { return [this, ...this.children.flatMap((child) => child.all)]; }
  querySelectorAll(what) {
    const name = what.startsWith("[") ? what.slice(1, -1) : null;
    return this.all.filter((node) => (name ? name in node.attributes : node.tag === what));
  }
}
for (const name of ["innerHTML", "outerHTML", "insertAdjacentHTML"]) {
  Object.defineProperty(Node.prototype, name, { get() { throw new Error(name); }, set() { throw new Error(name); } });
}

const input = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const parts = Object.fromEntries(["about", "sections", "main", "data"].map((id) => [id, new Node("div")]));
const body = new Node("body");
Object.values(parts).forEach((part) => body.appendChild(part));
globalThis.document = {
  activeElement: null,
  getElementById: (id) => parts[id],
  createElement: (tag) => new Node(tag),
  createElementNS: (_, tag) => new Node(tag),
  createTextNode: (text) => Object.assign(new Node("#text"), { text: String(text) }),
  querySelectorAll: (what) => body.querySelectorAll(what),
};
globalThis.window = { addEventListener() {} };
parts.data.text = input.data;
const listed = () => (body.all.find((node) => node.attributes.class === "questions") || new Node("ul")).querySelectorAll("button");

new Function(input.script)();
const found = { titles: body.querySelectorAll("h2").map((node) => node.textContent), shown: {}, searched: [] };
const filter = body.all.find((node) => node.tag === "select" && node.children.some((child) => child.attributes.value === "differ"));
for (const value of filter ? filter.children.map((child) => child.attributes.value) : []) {
  filter.value = value;
  filter.listeners.input();
  found.shown[value] = listed().map((node) => node.children[0].textContent);
}
if (filter) {
  filter.value = "all";
  filter.listeners.input();
  const search = body.all.find((node) => node.attributes.type === "search");
  search.value = input.search;
  search.listeners.input();
  found.searched = listed().map((node) => node.children[0].textContent);
  const first = listed()[0];
  if (first) first.listeners.click({ currentTarget: first });
}
const detail = body.querySelectorAll("article")[0];
found.detail = detail ? detail.textContent : "";
found.focused = Boolean(detail) && document.activeElement === detail;
found.page = body.textContent.replace(input.data, "");
found.tags = [...new Set(body.all.map((node) => node.tag))];
found.attributes = [...new Set(body.all.flatMap((node) => Object.keys(node.attributes)))];
found.drawings = body.querySelectorAll("svg").map((node) => node.attributes["aria-label"]);
found.numbers = body.all.filter((node) => !["#text"].includes(node.tag)).flatMap((node) => ["x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "points"].map((name) => node.attributes[name])).filter((value) => value !== undefined && /NaN|Infinity|undefined/.test(value));
process.stdout.write(JSON.stringify(found));
