// What a pipeline did before and while it wrote: searches, doubts, judgements and calls of tools, one line each.

import { make, quoted, some } from "./dom.js";

export class Steps {
  constructor() {
    this.root = make("ol", { class: "steps" });
    this.doubts = 0;
  }

  get length() {
    return this.root.children.length;
  }

  add(event) {
    const lines = { retrieved, tool_called: called, judged, doubted: (told) => this.doubted(told) }[event.type];
    if (lines) this.root.append(make("li", { class: event.type }, lines(event)));
  }

  doubted({ sentence, weak, theta, queries }) {
    this.doubts += 1;
    const tokens = weak.flatMap(([text, probability], place) => [place ? ", " : " ", quoted(text.trim() || "␠"), ` ${probability.toFixed(2)}`]);
    const searched = queries.length ? [" It searches for", list(queries), "."] : " Nothing is left to search for.";
    return [make("strong", { class: "doubt", tabindex: "-1", "data-doubt": this.doubts }, `?${this.doubts}`), " Doubts ", quoted(sentence),
      `: below ${theta}`, weak.length ? tokens : " is everything", ".", searched];
  }

  // The line of a doubt, under the focus.
  follow(number) {
    const line = this.root.querySelector(`[data-doubt="${Number(number)}"]`);
    line.scrollIntoView({ block: "nearest" });
    line.focus();
  }
}

function retrieved({ query, passages }) {
  const found = passages.map((passage) => make("li", { dir: "auto" }, passage.title || passage.document || passage.id));
  return ["Searched for ", quoted(query), ": ",
    passages.length ? make("details", {}, make("summary", {}, some(passages.length, "passage")), make("ul", {}, found)) : "nothing found"];
}

function called({ tool, input, output, error }) {
  return ["Called ", quoted(tool), " with ", quoted(input), ": ", error ? make("span", { class: "failed" }, `failed (${error})`) : quoted(output)];
}

function judged({ text, source, score, relevance, support, utility, likelihood, dropped }) {
  const scores = [["relevance", relevance], ["support", support], ["usefulness", utility], ["likelihood", likelihood], ["score", score]];
  return ["Judged ", quoted(text.trim() || "(no text)"), source ? [" from ", quoted(source)] : " from what it knows",
    dropped ? make("strong", {}, " (dropped: not supported)") : null,
    make("dl", {}, scores.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value.toFixed(2)))))];
}

function list(texts) {
  return texts.flatMap((text, place) => [place ? ", " : " ", quoted(text)]);
}
