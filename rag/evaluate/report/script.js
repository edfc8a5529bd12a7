"use strict";
// The page: its tables, then its plots, then the questions.

const SIGNIFICANT = 0.05;

function about(report) {
  const listed = (found) => Object.entries(found).filter(([, one]) => one !== null).map(([name, one]) => `${name} ${one}`).join(", ");
  replace(document.getElementById("about"),
    terms([["Questions", whole(report.data.questions)], ["Passages", whole(report.data.passages)], ["Pipelines", whole(report.pipelines.length)],
      ["Language", report.data.language], ["Licence", report.data.licence], ["Date", report.date.slice(0, 10)], ["Settings", listed(report.settings)]]),
    [...report.data.notes, ...report.cut].map((text) => make("p", { class: "note" }, text)),
    make("details", {}, make("summary", {}, "Machine, versions and fingerprint"), terms([["Machine", listed(report.machine)], ["Versions", listed(report.versions)], ["Fingerprint of the data", report.data.fingerprint]])));
}

function figures(report) {
  const scores = report.metrics.filter((metric) => !metric.cost);
  const costs = report.metrics.filter((metric) => metric.cost);
  const number = (name) => ({ name, number: true });
  const base = report.differences.length ? report.differences[0].base : "";
  const caption = "Means over the questions that did not fail (n of them where a metric does not apply to all), with 95% intervals"
    + (base ? `; ▲ better or ▼ worse than ${isolated(base)} by more than chance (corrected p below ${SIGNIFICANT})` : "");
  const groups = [["", 2], ["scores", scores.length], ["cost of a question", costs.length], ["", 1]].filter(([, columns]) => columns);
  section("figures", "Figures",
    table(caption, [{ name: "pipeline" }, number("failed"), ...scores.map((metric) => number(metric.name)), ...costs.map((metric) => number(metric.name)), number("questions/s")],
      report.pipelines.map((pipeline, place) => [
        pipelineName(pipeline.name, place), failed(pipeline),
        ...scores.map((metric) => [estimate(pipeline.means[metric.name], score, change(report, pipeline, metric)), fewer(pipeline, metric)]),
        ...costs.map((metric) => estimate(pipeline.means[metric.name], amount)), amount(pipeline.questions_per_second)]), groups),
    report.differences.length ? differences(report) : null,
    make("details", {}, make("summary", {}, "What the metrics are"), terms(report.metrics.map((metric) => [metric.name, metric.description]))));
}

function failed(pipeline) {
  if (!pipeline.failed) return "0";
  return [whole(pipeline.failed), " ", make("span", { class: "range" }, `of ${whole(pipeline.questions)}`)];
}

// A metric that does not apply to some answers has a mean over fewer.
function fewer(pipeline, metric) {
  const mean = pipeline.means[metric.name];
  return mean && mean.n < pipeline.questions - pipeline.failed ? [" ", make("span", { class: "range" }, `n = ${whole(mean.n)}`)] : null;
}

function change(report, pipeline, metric) {
  const row = report.differences.find((one) => one.pipeline === pipeline.name && one.metric === metric.name);
  if (!row || row.corrected >= SIGNIFICANT || !row.mean) return null;
  return row.mean > 0 === metric.higher_is_better
    ? make("span", { class: "better", title: "better" }, " ▲") : make("span", { class: "worse", title: "worse" }, " ▼");
}

function differences(report) {
  const place = (name) => report.pipelines.findIndex((pipeline) => pipeline.name === name);
  const corrected = (row) => (row.corrected < SIGNIFICANT ? make("strong", {}, chance(row.corrected)) : chance(row.corrected));
  return table(`Differences from ${isolated(report.differences[0].base)}, with p-values corrected for ${some(report.differences.length, "test")}`,
    [{ name: "pipeline" }, { name: "metric" }, { name: "difference [95% interval]", number: true }, { name: "questions", number: true }, { name: "p", number: true }, { name: "p corrected", number: true }],
    report.differences.map((row) => [pipelineName(row.pipeline, place(row.pipeline)), row.metric, interval(row, signed), whole(row.n), chance(row.p), corrected(row)]));
}

function failures(report) {
  const rows = report.pipelines.flatMap((pipeline, place) => pipeline.failures.map((failure) => [pipelineName(pipeline.name, place), whole(failure.questions), failure.error]));
  if (rows.length) section("failures", "Failures", table("Failed questions by error; they are in no mean", [{ name: "pipeline" }, { name: "questions", number: true }, { name: "error" }], rows));
}

function plots(report) {
  const scores = report.metrics.filter((metric) => !metric.cost && metric.high !== null);
  const costs = report.metrics.filter((metric) => metric.cost && report.pipelines.some((pipeline) => pipeline.means[metric.name]));
  if (!scores.some((metric) => report.pipelines.some((pipeline) => pipeline.means[metric.name]))) return;
  const seconds = costs.find((metric) => metric.name === "seconds") || costs[0];
  const state = { metric: scores[0].name, cost: seconds ? seconds.name : "" };
  const place = make("div", {});
  function redraw() {
    const metric = scores.find((one) => one.name === state.metric);
    const cost = costs.find((one) => one.name === state.cost);
    const calibrated = calibrationPlots(report, metric);
    replace(place,
      make("div", { class: "plots" }, intervals(report, metric), cost ? qualityAgainstCost(report, metric, cost) : null),
      Object.entries(report.breakdown).flatMap(([by, groups]) => byGroup(report, metric, by, groups)),
      calibrated.length ? [make("h3", {}, `Calibration of ${metric.name}`),
        make("p", { class: "note" }, "Bars are the mean score of the answers in each tenth of the confidence, with their number; a well-calibrated pipeline follows the dashed line. Confidence is the exponential of the mean log-probability of a token."),
        make("div", { class: "plots close" }, calibrated)] : []);
    repaintAll();
  }
  section("plots", "Plots",
    make("div", { class: "controls" },
      choice("Score", scores.map((metric) => [metric.name, metric.name]), state.metric, (found) => { state.metric = found; redraw(); }),
      costs.length ? choice("Cost", costs.map((metric) => [metric.name, metric.name]), state.cost, (found) => { state.cost = found; redraw(); }) : null),
    place);
  redraw();
  window.addEventListener("resize", repaintAll);
}

const GROUPS = 12;

function byGroup(report, metric, by, groups) {
  const number = (name) => ({ name, number: true });
  const lines = groups.flatMap((group) => report.pipelines.map((pipeline) =>
    [group.value, pipeline.name, whole(group.questions), whole(group.failed[pipeline.name]), interval(group.means[pipeline.name][metric.name], score)]));
  const scored = groups.filter((group) => report.pipelines.some((pipeline) => group.means[pipeline.name][metric.name]));
  return [make("h3", { dir: "auto" }, `${metric.name} by ${isolated(by)}`),
    make("div", { class: "plots close" }, scored.slice(0, GROUPS).map((group) => groupBars(report, metric, by, group))),
    make("details", { open: scored.length > GROUPS }, make("summary", {}, `All ${whole(groups.length)} groups as a table`),
      table(`${metric.name} by ${isolated(by)}: mean and 95% interval`, [{ name: by }, { name: "pipeline" }, number("questions"), number("failed"), number(metric.name)], lines))];
}

function configurations(report) {
  const found = report.pipelines.filter((pipeline) => Object.keys(pipeline.configuration).length);
  if (!found.length) return;
  section("configurations", "Configurations", found.map((pipeline) => make("details", {}, make("summary", {}, make("span", { dir: "auto" }, pipeline.name)),
    Object.entries(pipeline.configuration).map(([name, text]) => [make("h3", {}, name),
      make("pre", { tabindex: "0", role: "region", "aria-label": `${name} of ${pipeline.name}` }, typeof text === "string" ? text : JSON.stringify(text, null, 1))]))));
}

function show() {
  const report = JSON.parse(document.getElementById("data").textContent);
  about(report);
  figures(report);
  failures(report);
  plots(report);
  if (report.questions.length) section("questions", "Questions", questionBrowser(report));
  configurations(report);
}

show();
