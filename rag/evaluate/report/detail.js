"use strict";
// All there is about one question: its reference, and of each pipeline the answer, the passages and the trace.

const OPEN = 3;

function questionDetail(question, report) {
  const reference = question.parts.length
    ? make("ul", {}, question.parts.map((part) => make("li", { dir: "auto" }, part.join(" / "))))
    : question.answerable ? question.answers.join(" / ") : "(none: refusing is right)";
  const gold = question.gold.length;
  return [
    make("h3", { dir: "auto" }, question.text),
    terms([["Reference", reference], ["Type", question.kind], ["Question", question.id]]),
    gold ? make("details", { open: gold <= OPEN }, make("summary", {}, `Gold ${gold === 1 ? "passage" : "passages"} (${whole(gold)})`), passageList(question.gold, report, () => [])) : [],
    question.outcomes.map((outcome, place) => outcomePart(outcome, place, question, report)),
  ].flat();
}

function outcomePart(outcome, place, question, report) {
  const known = report.metrics.map((metric, at) => ({ metric, found: outcome.scores[at] })).filter(({ found }) => found !== null && found !== undefined);
  const scores = known.filter(({ metric }) => !metric.cost).map(({ metric, found }) => [metric.name, score(found)]);
  const costs = known.filter(({ metric }) => metric.cost).map(({ metric, found }) => [metric.name, amount(found)]);
  const cited = outcome.citations.map(([id]) => id);
  const marks = (id) => [question.gold.includes(id) ? "gold" : "", cited.includes(id) ? "cited" : ""].filter(Boolean);
  const found = outcome.retrieved.filter((id) => question.gold.includes(id)).length;
  const unlisted = outcome.retrieved_in_all - outcome.retrieved.length;
  return make("section", { class: `outcome ${colour(place)}`, "aria-label": `${place + 1}: ${report.pipelines[place].name}` },
    make("h4", {}, pipelineName(report.pipelines[place].name, place)),
    outcome.error ? make("p", { class: "failed" }, make("strong", {}, "Failed: "), outcome.error)
      : make("p", { class: "answer", dir: "auto" }, outcome.answer || (outcome.retrieved.length ? "(passages only)" : "(empty answer)")),
    outcome.refused ? make("p", { class: "note" }, "It refused to answer.") : null,
    outcome.error ? null : terms([...scores, ["confidence", outcome.confidence === null ? "" : score(outcome.confidence)], ...costs], "small"),
    cited.length ? make("p", {}, make("strong", {}, "Citations: "), outcome.citations.map(([id, good], at) => [at ? ", " : "", make("bdi", {}, id), ` (${good ? "supported" : "not supported"})`])) : null,
    outcome.retrieved.length ? make("details", {},
      make("summary", {}, `Retrieved passages (${whole(outcome.retrieved_in_all)}${found ? `, ${whole(found)} gold` : ""})`),
      passageList(outcome.retrieved, report, marks),
      unlisted > 0 ? make("p", { class: "note" }, `${some(unlisted, "more passage")} not listed.`) : null) : null,
    outcome.trace ? make("details", {}, make("summary", {}, "Trace"), make("ul", { class: "trace" }, span(outcome.trace, outcome.trace.seconds))) : null);
}

function passageList(ids, report, marks) {
  return make("ol", { class: "passages" }, ids.map((id) => {
    const passage = Object.hasOwn(report.passages, id) ? report.passages[id] : null;
    return make("li", {}, make("strong", { dir: "auto" }, passage && passage.title ? passage.title : id),
      passage && passage.title && passage.title !== id ? [" ", make("bdi", { class: "note" }, id)] : null,
      marks(id).map((mark) => [" ", make("span", { class: "tag" }, mark)]),
      passage ? make("p", { dir: "auto" }, passage.text) : make("p", { class: "note" }, "(its text is not in this file)"));
  }));
}

// A step of the trace, with when it ran in the `all` seconds of the run; then the steps below it.
function span(node, all) {
  const counts = Object.entries(node.counts).map(([name, found]) => `${name} ${amount(found)}`).join(", ");
  return make("li", {},
    make("div", { class: "step" }, make("strong", {}, node.node), make("span", { class: "note" }, [duration(node.seconds), counts].filter(Boolean).join(", ")), clock(node, all)),
    Object.entries(node.inputs).map(([name, text]) => make("div", { dir: "auto" }, make("span", { class: "note" }, `${name}: `), text)),
    node.output ? make("div", { dir: "auto" }, make("span", { class: "note" }, "→ "), node.output) : null,
    node.notes.map((text) => make("div", { dir: "auto" }, `! ${text}`)),
    node.error ? make("div", { class: "failed" }, node.error) : null,
    node.children.length ? make("ul", {}, node.children.map((child) => span(child, all))) : null,
    node.left_out ? make("div", { class: "note" }, `${some(node.left_out, "more step")} not in this file.`) : null);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  return seconds < 1 ? `${amount(seconds * 1000)} ms` : `${amount(seconds)} s`;
}

const CLOCK = 140;

function clock(node, all) {
  if (!(all > 0) || !(node.seconds >= 0) || !(node.at >= 0)) return null;
  const x = Math.min(CLOCK - 2, (node.at / all) * CLOCK);
  return draw("svg", { width: CLOCK, height: 8, viewBox: `0 0 ${CLOCK} 8`, "aria-hidden": "true" },
    draw("rect", { width: CLOCK, height: 8, class: "track" }),
    draw("rect", { x, width: Math.max(2, Math.min(CLOCK - x, (node.seconds / all) * CLOCK)), height: 8, class: "span" }));
}
