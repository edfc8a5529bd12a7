// What comes from the server is hostile: elements are built node by node, and strings become text nodes and nothing else.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined).map(asNode));
  return element;
}

function asNode(child) {
  return typeof child === "object" ? child : document.createTextNode(String(child));
}

export function byId(id) {
  return document.getElementById(id);
}

export function some(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}

// A text in the middle of a sentence of ours, whichever way it is written.
export function quoted(text) {
  return make("bdi", { class: "quoted" }, text);
}

// For screen readers, in turn and not token by token.
export function announce(text) {
  byId("announcer").textContent = text;
}
