"use strict";
// The page: its tables, then its plots, then the questions.

function about(report) {
  const settings = Object.entries(report.settings).filter(([, found]) => found !== null).map(([name, found]) => `${name} ${found}`).join(", ");
  const versions = Object.entries(report.versions).map(([name, found]) => `${name} ${found}`).join(", ");
  replace(document.getElementById("about"),
    terms([["Questions", whole(report.data.questions)], ["Passages", whole(report.data.passages)], ["Pipelines", whole(report.pipelines.length)],
      ["Language", report.data.language], ["Licence", report.data.licence], ["Fingerprint", report.data.fingerprint], ["Settings", settings], ["Versions", versions]]),
    [...report.data.notes, ...report.cut].map((text) => make("p", { class: "note" }, text)));
}

function tables(report) {
  const scores = report.metrics.filter((metric) => !metric.cost);
  const costs = report.metrics.filter((metric) => metric.cost);
  const number = (name) => ({ name, number: true });
  const parts = [table("Scores: mean and 95% interval over the questions that did not fail", [{ name: "pipeline" }, number("failed"), ...scores.map((metric) => number(metric.name))],
    report.pipelines.map((pipeline, place) => [`${place + 1}. ${pipeline.name}`, `${whole(pipeline.failed)} of ${whole(pipeline.questions)}`, ...scores.map((metric) => interval(pipeline.means[metric.name], score))]))];
  if (report.differences.length) {
    parts.push(table(`Differences from ${report.differences[0].base}, with p-values corrected for ${some(report.differences.length, "test")}`,
      [{ name: "pipeline" }, { name: "metric" }, number("difference"), number("questions"), number("p"), number("p corrected")],
      report.differences.map((row) => [row.pipeline, row.metric, interval(row, signed), whole(row.n), chance(row.p), chance(row.corrected)])));
  }
  parts.push(table("Cost of a question, on average, with 95% interval", [{ name: "pipeline" }, ...costs.map((metric) => number(metric.name)), number("questions/s")],
    report.pipelines.map((pipeline, place) => [`${place + 1}. ${pipeline.name}`, ...costs.map((metric) => interval(pipeline.means[metric.name], amount)), amount(pipeline.questions_per_second)])));
  parts.push(make("details", {}, make("summary", {}, "What the metrics are"), terms(report.metrics.map((metric) => [metric.name, metric.description]))));
  section("means", "Means", parts);
}

function failures(report) {
  const rows = report.pipelines.flatMap((pipeline) => pipeline.failures.map((failure) => [pipeline.name, whole(failure.questions), failure.error]));
  if (rows.length) section("failures", "Failures", table("Failed questions by error; they are in no mean", [{ name: "pipeline" }, { name: "questions", number: true }, { name: "error" }], rows));
}

function plots(report) {
  const scores = report.metrics.filter((metric) => !metric.cost && metric.high !== null);
  const costs = report.metrics.filter((metric) => metric.cost && report.pipelines.some((pipeline) => pipeline.means[metric.name]));
  if (!scores.some((metric) => report.pipelines.some((pipeline) => pipeline.means[metric.name]))) return;
  const state = { metric: scores[0].name, cost: costs.length ? costs[0].name : "" };
  const place = make("div", {});
  function redraw() {
    const metric = scores.find((one) => one.name === state.metric);
    const cost = costs.find((one) => one.name === state.cost);
    const calibrated = Object.values(report.calibration).some((found) => found[metric.name]);
    replace(place,
      make("h3", {}, "Intervals"), intervals(report, metric),
      cost ? [make("h3", {}, "Quality against cost"), qualityAgainstCost(report, metric, cost)] : [],
      Object.entries(report.breakdown).flatMap(([by, groups]) => [make("h3", {}, `By ${by}`), ...byGroup(report, metric, by, groups)]),
      calibrated ? [make("h3", {}, "Calibration"), calibrationPlot(report, metric)] : []);
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
  return [...groups.slice(0, GROUPS).map((group) => groupBars(report, metric, by, group)),
    make("details", { open: groups.length > GROUPS }, make("summary", {}, `All ${whole(groups.length)} groups as a table`),
      table(`${metric.name} by ${by}: mean and 95% interval`, [{ name: by }, { name: "pipeline" }, number("questions"), number("failed"), number(metric.name)], lines))];
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
  tables(report);
  failures(report);
  plots(report);
  if (report.questions.length) section("questions", "Questions", questionBrowser(report));
  configurations(report);
}

show();
