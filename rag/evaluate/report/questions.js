"use strict";
// The browser of single questions: a list that is searched and filtered, and all there is about the one that is chosen.

const PAGE = 50;

function questionBrowser(report) {
  const scores = report.metrics.filter((metric) => !metric.cost);
  const state = { text: "", show: "all", pipeline: "", metric: scores.length ? scores[0].name : "", shown: PAGE, chosen: null };
  const list = make("ul", { class: "questions", "aria-label": "Questions", onkeydown: walk });
  const count = make("p", { role: "status", "aria-live": "polite" });
  const more = make("button", { type: "button", onclick: () => { state.shown += PAGE; refresh(); } }, "Show more");
  const detail = make("article", { class: "detail", "aria-label": "Chosen question", tabindex: "-1" }, make("p", {}, "Choose a question."));
  const search = make("input", { type: "search", oninput: () => change("text", search.value) });
  const controls = make("form", { class: "controls", role: "search", "aria-label": "Questions" },
    make("label", { class: "choice" }, make("span", {}, "Search"), search),
    choice("Show", [["all", "all"], ["right", "right"], ["wrong", "not right"], ["failed", "failed"], ["differ", "pipelines differ"]], "all", (value) => change("show", value)),
    choice("Pipeline", [["", "any"], ...report.pipelines.map((pipeline, place) => [String(place), pipeline.name])], "", (value) => change("pipeline", value)),
    scores.length ? choice("By", scores.map((metric) => [metric.name, metric.name]), state.metric, (value) => change("metric", value)) : null);
  controls.addEventListener("submit", (event) => event.preventDefault());

  function change(name, value) {
    state[name] = value;
    state.shown = PAGE;
    refresh();
  }

  function refresh() {
    const found = report.questions.filter((question) => matches(question, report, state));
    count.textContent = `${some(found.length, "question")} of ${whole(report.questions.length)}`;
    replace(list, found.slice(0, state.shown).map((question) => make("li", {}, entry(question))));
    more.hidden = found.length <= state.shown;
  }

  function entry(question) {
    return make("button", { type: "button", "aria-current": question === state.chosen ? "true" : null, onclick: (event) => choose(question, event.currentTarget) },
      make("span", { dir: "auto" }, fitted(question.text, 200)),
      make("span", { class: "marks" }, question.outcomes.map((outcome, place) => `${place + 1}: ${verdict(outcome, report, state.metric)}`).join("  ")));
  }

  function choose(question, button) {
    for (const other of list.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    state.chosen = question;
    replace(detail, questionDetail(question, report));
    detail.focus();
  }

  function walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = Array.from(list.querySelectorAll("button"));
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (next) next.focus();
    event.preventDefault();
  }

  refresh();
  return [controls, count, make("div", { class: "browser" }, make("div", {}, list, more), detail)];
}

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

function questionDetail(question, report) {
  const reference = question.parts.length
    ? make("ul", {}, question.parts.map((part) => make("li", { dir: "auto" }, part.join(" / "))))
    : question.answerable ? question.answers.join(" / ") : "(none: refusing is right)";
  return [
    make("h3", { dir: "auto" }, question.text),
    terms([["Question", question.id], ["Type", question.kind], ["Reference", reference], ["Gold passages", question.gold.length ? passageList(question.gold, question, report, []) : ""]]),
    question.outcomes.map((outcome, place) => outcomePart(outcome, place, question, report)),
  ].flat();
}

function outcomePart(outcome, place, question, report) {
  const scores = report.metrics.map((metric, at) => [metric.name, metric.cost ? amount(outcome.scores[at]) : score(outcome.scores[at])]);
  const valid = outcome.citations.map(([id, good]) => `${id} (${good ? "supported" : "not supported"})`);
  const unlisted = outcome.retrieved_in_all - outcome.retrieved.length;
  return make("section", { class: `outcome ${colour(place)}`, "aria-label": `${place + 1}: ${report.pipelines[place].name}` },
    make("h4", { dir: "auto" }, `${place + 1}. ${report.pipelines[place].name}`),
    outcome.error ? make("p", { class: "failed" }, make("strong", {}, "Failed: "), outcome.error)
      : make("p", { class: "answer", dir: "auto" }, outcome.answer || (outcome.retrieved.length ? "(passages only)" : "(empty answer)")),
    outcome.refused ? make("p", {}, "It refused to answer.") : null,
    outcome.error ? null : terms([...scores, ["confidence", outcome.confidence === null ? "" : score(outcome.confidence)]]),
    valid.length ? make("p", {}, make("strong", {}, "Citations: "), valid.join(", ")) : null,
    outcome.retrieved.length ? make("details", {}, make("summary", {}, `Retrieved passages (${whole(outcome.retrieved_in_all)})`),
      passageList(outcome.retrieved, question, report, outcome.citations.map(([id]) => id)),
      unlisted > 0 ? make("p", { class: "note" }, `${some(unlisted, "more passage")} not listed.`) : null) : null,
    outcome.trace ? make("details", {}, make("summary", {}, "Trace"), make("ul", { class: "trace" }, span(outcome.trace))) : null);
}

function passageList(ids, question, report, cited) {
  return make("ol", { class: "passages" }, ids.map((id) => {
    const passage = Object.hasOwn(report.passages, id) ? report.passages[id] : null;
    const marks = [question.gold.includes(id) ? "gold" : "", cited.includes(id) ? "cited" : ""].filter(Boolean).join(", ");
    return make("li", {}, make("strong", { dir: "auto" }, passage && passage.title ? `${passage.title} (${id})` : id), marks ? ` [${marks}]` : "",
      passage ? make("p", { dir: "auto" }, passage.text) : make("p", { class: "note" }, "(its text is not in this file)"));
  }));
}

function span(node) {
  const counts = Object.entries(node.counts).map(([name, found]) => `${name} ${amount(found)}`).join(", ");
  const facts = [
    Object.entries(node.inputs).map(([name, text]) => make("div", { dir: "auto" }, `${name}: ${text}`)),
    node.output ? make("div", { dir: "auto" }, `→ ${node.output}`) : null,
    node.notes.map((text) => make("div", { dir: "auto" }, `! ${text}`)),
    node.error ? make("div", { class: "failed" }, node.error) : null,
  ];
  return make("li", {}, make("strong", {}, node.node), ` ${node.seconds === null ? "" : `${amount(node.seconds * 1000)} ms`}${counts ? `, ${counts}` : ""}`, facts,
    node.children.length ? make("ul", {}, node.children.map(span)) : null,
    node.left_out ? make("div", { class: "note" }, `${some(node.left_out, "more step")} not in this file.`) : null);
}
