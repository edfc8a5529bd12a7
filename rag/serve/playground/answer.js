// The text of an answer: shaded by how probable the model found each token, with the places of doubt, and markers that open their passage.

import { claim, markers } from "./citations.js";
import { make } from "./dom.js";

const REACH = 12; // characters that may lie between a token and the one before: a method may tidy the text that it streams
const PAUSE = 80; // milliseconds between two pictures of a text that grows

export class Answer {
  // `open(source, claim, button)` shows a passage, `follow(number)` a doubt.
  constructor(open, follow) {
    this.text = "";
    this.root = make("div", { class: "answer", dir: "auto" });
    this.open = open;
    this.follow = follow;
    this.shades = [];
    this.doubts = [];
    this.marks = [];
    this.shaded = 0;
    this.ended = false;
    this.timer = null;
  }

  add(text) {
    this.text += text;
    this.soon();
  }

  // `tokens` are those of the text since the last time: [[text, probability], …].
  shade(tokens) {
    let from = this.shaded;
    for (const [token, probability] of tokens) {
      const [place, length] = this.find(token, from);
      if (place < 0) continue;
      this.shades.push({ start: place, end: place + length, probability });
      from = place + length;
    }
    this.shaded = this.text.length;
    this.soon();
  }

  find(token, from) {
    for (const text of [token, token.trim()]) {
      const place = text ? this.text.indexOf(text, from) : -1;
      if (place >= 0 && place - from <= REACH) return [place, text.length];
    }
    return [-1, 0];
  }

  doubt(number) {
    this.doubts.push({ at: this.text.length, number });
    this.soon();
  }

  // What the last chunk of the stream told. A final text other than the streamed one takes its place, without shades.
  finish({ text, sources, citations }) {
    if (text !== undefined && text !== this.text) {
      this.text = text;
      this.shades = [];
      this.doubts = [];
    }
    this.marks = markers(this.text, sources, citations);
    this.end();
  }

  end() {
    clearTimeout(this.timer);
    this.ended = true;
    this.draw();
  }

  get isShaded() {
    return this.shades.length > 0;
  }

  soon() {
    if (this.timer !== null) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      if (!this.ended) this.draw();
    }, PAUSE);
  }

  draw() {
    const starts = [...this.shades, ...this.marks].flatMap((one) => [one.start, one.end]);
    const cuts = [...new Set([0, this.text.length, ...starts, ...this.doubts.map((doubt) => doubt.at)])].sort((a, b) => a - b);
    const shades = this.shades.values();
    let shade = shades.next().value;
    const nodes = [];
    cuts.forEach((start, place) => {
      nodes.push(...this.doubts.filter((doubt) => doubt.at === start).map((doubt) => this.doubtMark(doubt)));
      const end = cuts[place + 1];
      if (end === undefined) return;
      while (shade && shade.end <= start) shade = shades.next().value;
      const mark = this.marks.find((one) => one.start <= start && start < one.end);
      if (mark) nodes.push(...(mark.start === start ? [this.citation(mark)] : []));
      else nodes.push(shaded(this.text.slice(start, end), shade && shade.start <= start ? shade.probability : null));
    });
    this.root.replaceChildren(...nodes);
  }

  citation(mark) {
    const { source, citation } = mark;
    const weak = citation !== undefined && !citation.valid;
    const name = `Source ${source.number}: ${source.title || source.document}${weak ? " (does not support this)" : ""}`;
    const open = (event) => this.open(source, claim(this.text, mark.start), event.currentTarget);
    return make("button", { type: "button", class: weak ? "cite weak" : "cite", "aria-label": name, title: name, onclick: open }, `[${source.number}]`);
  }

  // While the text grows it is drawn anew again and again, and what has the focus would lose it: buttons come at the end.
  doubtMark({ number }) {
    const text = `?${number}`;
    const title = `Doubt ${number}: searched again before this sentence was written`;
    if (!this.ended) return make("span", { class: "doubt", title }, text);
    return make("button", { type: "button", class: "doubt", title, "aria-label": title, onclick: () => this.follow(number) }, text);
  }
}

function shaded(text, probability) {
  if (probability === null) return document.createTextNode(text);
  const grade = probability >= 0.9 ? 3 : probability >= 0.6 ? 2 : probability >= 0.3 ? 1 : 0;
  return make("span", { class: `p${grade}`, title: `probability ${probability.toFixed(3)}` }, text);
}
