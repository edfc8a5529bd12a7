// The YAML of a pipeline beside its drawing. What is edited here is drawn anew, and changes nothing on the server.

import { Failure, postJson } from "./client.js";
import { make } from "./dom.js";

const PAUSE = 400; // milliseconds without a key before a text is drawn

export class Editor {
  // `draw(card)` shows an edited graph; `draw(null)` the served one.
  constructor(place, draw) {
    this.served = "";
    this.draw = draw;
    this.timer = null;
    this.asked = null;
    this.text = make("textarea", { id: "yaml", rows: "16", spellcheck: "false", wrap: "off", "aria-describedby": "yaml-state", oninput: () => this.changed() });
    this.reset = make("button", { type: "button", "aria-disabled": "true", onclick: () => this.back() }, "Reset");
    this.state = make("p", { id: "yaml-state", class: "note", role: "status" });
    this.note = make("p", { class: "note" }, "A text that you change is only drawn (with a key that has the scope “admin”): the server goes on with its own.");
    place.append(make("label", { class: "choice" }, make("span", {}, "YAML"), this.text), this.state, make("div", { class: "controls" }, this.reset), this.note);
  }

  show(card) {
    this.served = card.yaml ?? "";
    this.text.value = this.served;
    this.text.readOnly = card.yaml === null;
    this.settle(card.note ?? "");
  }

  changed() {
    clearTimeout(this.timer);
    this.reset.setAttribute("aria-disabled", "false");
    this.timer = setTimeout(() => this.redraw(), PAUSE);
  }

  async redraw() {
    this.asked?.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    try {
      const card = await postJson("v1/pipelines/draw", { yaml: this.text.value }, signal);
      if (signal.aborted) return;
      this.draw(card);
      this.tell(card.problem ? `Drawn, but it cannot run: ${card.problem}` : "Drawn.", card.problem !== null);
    } catch (error) {
      if (error instanceof Failure) this.tell(error.message, true);
      else if (error.name !== "AbortError") throw error;
    }
  }

  back() {
    if (this.reset.getAttribute("aria-disabled") === "true") return;
    this.text.value = this.served;
    this.settle("");
    this.draw(null);
  }

  settle(text) {
    clearTimeout(this.timer);
    this.asked?.abort();
    this.reset.setAttribute("aria-disabled", "true");
    this.tell(text, false);
  }

  tell(text, wrong) {
    this.state.textContent = text;
    this.state.className = wrong ? "failed" : "note";
    this.text.setAttribute("aria-invalid", String(wrong));
  }
}
