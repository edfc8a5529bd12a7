"use strict";
// Text from a run is hostile: elements are built node by node, and strings become text nodes and nothing else.

const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick" || name === "oninput" || name === "onkeydown" || name === "ontoggle") {
      element.addEventListener(name.slice(2), value);
    } else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined) continue;
    element.appendChild(typeof child === "object" ? child : document.createTextNode(String(child)));
  }
  return element;
}

function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null));
}

// A part of the page under a heading, known to the list of sections.
function section(id, title, ...children) {
  document.getElementById("sections").appendChild(make("li", {}, make("a", { href: `#${id}` }, title)));
  const part = make("section", { id, "aria-labelledby": `${id}-title` }, make("h2", { id: `${id}-title` }, title), children);
  document.getElementById("main").appendChild(part);
  return part;
}

// Wide tables scroll inside their own frame, which the keyboard reaches. `groups` are headings over columns: [text, how many].
function table(caption, columns, rows, groups) {
  const over = groups ? make("tr", { class: "over" }, groups.map(([text, width]) => make(text ? "th" : "td", { scope: text ? "colgroup" : null, colspan: width }, text))) : null;
  const head = columns.map((column) => make("th", { scope: "col", class: column.number ? "number" : null }, breakable(column.name)));
  const body = rows.map((row) =>
    make("tr", {}, row.map((cell, place) =>
      place === 0
        ? make("th", { scope: "row", dir: "auto" }, cell)
        : make("td", { class: columns[place].number ? "number" : null, dir: columns[place].number ? null : "auto" }, cell))));
  return [make("p", { class: "caption" }, caption),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      make("table", { class: groups ? "stacked" : null, "aria-label": caption }, make("thead", {}, over, make("tr", {}, head)), make("tbody", {}, body)))];
}

// Names of metrics may go on in a new line after an underscore.
function breakable(name) {
  return name.split("_").flatMap((part, place) => (place ? ["_", make("wbr"), part] : [part]));
}

// A pipeline by its colour, its number and its name.
function pipelineName(name, place) {
  return [key(place), make("span", { dir: "auto", class: "name" }, name)];
}

function key(place) {
  return make("span", { class: `key ${colour(place)}` }, place + 1);
}

function choice(label, options, chosen, change) {
  const select = make("select", { oninput: () => change(select.value) },
    options.map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
  return make("label", { class: "choice" }, make("span", {}, label), select);
}

function terms(pairs, kind) {
  return make("dl", { class: kind }, pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined)
    .map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", { dir: "auto" }, value))));
}

function whole(value) {
  return value.toLocaleString("en");
}

function score(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

function amount(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 1000 ? whole(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function signed(value) {
  return (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
}

function chance(p) {
  return p < 0.001 ? "<0.001" : p.toFixed(3);
}

function interval(mean, show) {
  return mean ? `${show(mean.mean)} [${show(mean.low)}, ${show(mean.high)}]` : "–";
}

// The same as elements, to be set one below the other.
function estimate(mean, show, ...marks) {
  return mean ? [show(mean.mean), marks, " ", make("span", { class: "range" }, `[${show(mean.low)}, ${show(mean.high)}]`)] : "–";
}

function isolated(text) {
  return `\u2068${text}\u2069`;
}

function some(count, noun) {
  return `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;
}
