"use strict";
// The browser of single questions: a list that is searched and filtered, with the one that is chosen beside it.

const PAGE = 50;
const LISTED = 200;

function questionBrowser(report) {
  const scores = report.metrics.filter((metric) => !metric.cost);
  const state = { text: "", show: "all", pipeline: "", metric: scores.length ? scores[0].name : "", shown: PAGE, found: [], chosen: null };
  const list = make("ul", { class: "questions", "aria-label": "Questions", onkeydown: walk });
  const count = make("p", { role: "status" });
  const position = make("p", { role: "status" });
  const more = make("button", { type: "button", onclick: () => { state.shown += PAGE; fillList(); } }, "Show more");
  const previous = make("button", { type: "button", onclick: () => step(-1) }, "Previous");
  const next = make("button", { type: "button", onclick: () => step(1) }, "Next");
  const detail = make("article", { class: "detail", "aria-label": "Chosen question", tabindex: "-1" });
  const search = make("input", { type: "search", oninput: () => change("text", search.value) });
  const controls = make("form", { class: "controls", role: "search", "aria-label": "Questions" },
    make("label", { class: "choice" }, make("span", {}, "Search"), search),
    choice("Show", [["all", "all"], ["right", "right"], ["wrong", "not right"], ["failed", "failed"], ["differ", "pipelines differ"]], "all", (value) => change("show", value)),
    choice("Pipeline", [["", "any"], ...report.pipelines.map((pipeline, place) => [String(place), `${place + 1} ${pipeline.name}`])], "", (value) => change("pipeline", value)),
    scores.length ? choice("Score", scores.map((metric) => [metric.name, metric.name]), state.metric, (value) => change("metric", value)) : null);
  controls.addEventListener("submit", (event) => event.preventDefault());

  function change(name, value) {
    state[name] = value;
    state.shown = PAGE;
    refresh();
  }

  function refresh() {
    state.found = report.questions.filter((question) => matches(question, report, state));
    count.textContent = `${some(state.found.length, "question")} of ${whole(report.questions.length)}`;
    if (!state.found.includes(state.chosen)) state.chosen = state.found[0] || null;
    fillList();
    showChosen();
  }

  function fillList() {
    replace(list, state.found.slice(0, state.shown).map((question) => make("li", {}, entry(question))));
    more.hidden = state.found.length <= state.shown;
    markChosen();
  }

  function entry(question) {
    return make("button", { type: "button", onclick: () => { choose(question); detail.focus(); } },
      make("span", { dir: "auto" }, question.text.length > LISTED ? `${Array.from(question.text).slice(0, LISTED).join("")}…` : question.text),
      make("span", { class: "marks" }, question.outcomes.map((outcome, place) => {
        const found = verdict(outcome, report, state.metric);
        return make("span", {}, `${place + 1}: `, make("span", { class: MARKS[found] || null }, found));
      })));
  }

  function choose(question) {
    state.chosen = question;
    markChosen();
    showChosen();
  }

  function step(by) {
    const place = state.found.indexOf(state.chosen) + by;
    if (place < 0 || place >= state.found.length) return;
    if (place >= state.shown) {
      state.shown += PAGE;
      fillList();
    }
    choose(state.found[place]);
  }

  function showChosen() {
    const place = state.found.indexOf(state.chosen);
    // not disabled: a button that loses the focus when it is at the end would strand the keyboard
    previous.setAttribute("aria-disabled", String(place <= 0));
    next.setAttribute("aria-disabled", String(place < 0 || place === state.found.length - 1));
    position.textContent = state.chosen ? `${whole(place + 1)} of ${whole(state.found.length)}` : "";
    replace(detail, state.chosen ? questionDetail(state.chosen, report) : [make("p", {}, "No question is like that.")]);
  }

  function markChosen() {
    const place = state.found.indexOf(state.chosen);
    list.querySelectorAll("button").forEach((button, at) => {
      if (at !== place) {
        button.removeAttribute("aria-current");
        return;
      }
      button.setAttribute("aria-current", "true");
      const end = button.offsetTop + button.offsetHeight;
      if (button.offsetTop < list.scrollTop || end > list.scrollTop + list.clientHeight) list.scrollTop = button.offsetTop;
    });
  }

  function walk(event) {
    const buttons = Array.from(list.querySelectorAll("button"));
    const at = buttons.indexOf(document.activeElement);
    const place = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (place === undefined) return;
    if (buttons[place]) buttons[place].focus();
    event.preventDefault();
  }

  refresh();
  return [controls, count, make("div", { class: "browser" }, make("div", {}, list, more), make("div", {}, make("div", { class: "steps" }, previous, next, position), detail))];
}

const MARKS = { right: "right", failed: "failed" };

function value(outcome, report, name) {
  const place = report.metrics.findIndex((metric) => metric.name === name);
  return place < 0 ? null : outcome.scores[place];
}

// Right is the best value the metric has; all else that was scored is not.
function verdict(outcome, report, name) {
  if (outcome.error) return "failed";
  const found = value(outcome, report, name);
  if (found === null || found === undefined) return "no score";
  const best = report.metrics.find((metric) => metric.name === name).best;
  return Math.abs(found - best) < 1e-9 ? "right" : score(found);
}

function matches(question, report, state) {
  const needle = state.text.trim().toLowerCase();
  if (needle && ![question.id, question.text, question.kind, ...question.answers, ...question.parts.flat(), ...question.outcomes.map((outcome) => outcome.answer)]
    .some((text) => text.toLowerCase().includes(needle))) return false;
  if (state.show === "all") return true;
  const verdicts = question.outcomes.map((outcome) => verdict(outcome, report, state.metric));
  if (state.show === "differ") return new Set(verdicts).size > 1;
  const looked = state.pipeline === "" ? verdicts : [verdicts[Number(state.pipeline)]];
  if (state.show === "wrong") return looked.some((found) => !["right", "failed", "no score"].includes(found));
  return looked.includes(state.show);
}
