// One model's answer to one question, from the first event to the last.

import { Answer } from "./answer.js";
import { Failure, events } from "./client.js";
import { announce, make, seconds, some } from "./dom.js";
import { openPassage, sourceList } from "./sources.js";
import { Steps } from "./steps.js";

export class Column {
  // `shaded()` is called once there are probabilities to explain.
  constructor(model, graph, shaded) {
    this.model = model;
    this.graph = graph;
    this.shaded = shaded;
    this.state = make("p", { class: "note state" }, "Waiting for the server…");
    this.steps = new Steps();
    this.answer = new Answer(openPassage, (number) => this.follow(number));
    this.more = make("div", {});
    this.stepsPart = make("details", { hidden: true }, make("summary", {}, "Steps"), this.steps.root);
    this.root = make("article", { "aria-label": `Answer of ${model}` }, make("h3", { dir: "auto" }, model), this.state, this.answer.root, this.more, this.stepsPart);
    this.usage = null;
    this.told = null;
    this.began = performance.now();
    this.first = null;
  }

  async ask(question, signal) {
    this.graph.clear();
    let whole = false;
    try {
      const body = { model: this.model, messages: [{ role: "user", content: question }], stream: true, stream_options: { include_usage: true }, graft: { events: true } };
      for await (const text of events("v1/chat/completions", body, signal)) {
        if (text === "[DONE]") whole = true;
        else this.take(JSON.parse(text));
      }
      if (!whole || !this.told) throw new Failure("The connection ended before the answer did.");
      this.finish();
    } catch (error) {
      this.answer.end();
      if (error.name === "AbortError") this.say("Stopped. The answer is not whole.");
      else if (error instanceof Failure) this.say(error.message, true);
      else throw error;
    }
  }

  take(chunk) {
    if (chunk.error) throw new Failure(chunk.error.message);
    if (chunk.usage) this.usage = chunk.usage;
    const content = chunk.choices[0]?.delta.content;
    if (content) {
      if (this.first === null) {
        this.first = this.elapsed();
        this.state.textContent = "Writing…";
        announce(`${this.model} writes its answer`);
      }
      this.answer.add(content);
    }
    if (chunk.graft?.event) this.step(chunk.graft.event);
    else if (chunk.graft) this.told = chunk.graft;
  }

  step(event) {
    if (event.type === "node_started") this.graph.started(event.node);
    else if (event.type === "node_finished") this.graph.finished(event.node, event.seconds, event.error);
    else if (event.type === "tokens") {
      this.answer.shade(event.tokens);
      if (this.answer.isShaded) this.shaded();
    } else {
      this.steps.add(event);
      if (event.type === "doubted") this.answer.doubt(this.steps.doubts);
      if (this.first === null && event.type === "retrieved") this.state.textContent = "Searched; waiting for the first words…";
      this.stepsPart.hidden = false;
      this.stepsPart.firstChild.textContent = some(this.steps.length, "step");
    }
  }

  finish() {
    const { sources, citations, notes, refused } = this.told;
    this.answer.finish(this.told);
    const time = `Done in ${seconds(this.elapsed())}${this.first === null ? "" : `, first words after ${seconds(this.first)}`}`;
    const tokens = this.usage ? `; ${some(this.usage.prompt_tokens, "token")} read, ${this.usage.completion_tokens.toLocaleString("en")} written` : "";
    this.more.append(
      ...(refused ? [make("p", {}, make("span", { class: "tag" }, "refused"), " It did not find enough to answer.")] : []),
      ...(notes.length ? [make("h4", {}, "Notes"), make("ul", { class: "notes" }, notes.map((note) => make("li", { dir: "auto" }, note)))] : []),
      ...(sources.length ? [make("h4", {}, "Sources"), sourceList(sources, citations)] : []));
    this.state.textContent = `${time}${tokens}`;
    announce(`${this.model} answers: ${this.answer.text} (${some(sources.length, "source")})`);
  }

  follow(number) {
    this.stepsPart.open = true;
    this.steps.follow(number);
  }

  say(text, wrong = false) {
    this.state.textContent = text;
    this.state.className = wrong ? "failed state" : "note state";
    announce(`${this.model}: ${text}`);
  }

  elapsed() {
    return (performance.now() - this.began) / 1000;
  }
}
