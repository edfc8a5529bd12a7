"use strict";
// Plots are drawn to the width at hand, so that their text keeps its size on a small screen. A pipeline is a colour and a number.

const MARGIN = { left: 46, right: 16, top: 12, bottom: 42 };
const COLOURS = 8;

function colour(place) {
  return `s${place % COLOURS}`;
}

function legend(names, remarks) {
  return make("ol", { class: "legend" }, names.map((name, place) =>
    make("li", {}, make("span", { class: `key ${colour(place)}`, "aria-hidden": "true" }, place + 1), make("span", { dir: "auto" }, name),
      remarks && remarks[place] ? ` ${remarks[place]}` : "")));
}

// A figure that draws itself again when its width changes.
function figure(title, paint, ...below) {
  const canvas = make("div", { class: "canvas" });
  const element = make("figure", {}, make("figcaption", {}, title), canvas, below);
  let width = 0;
  function repaint() {
    const now = Math.max(240, Math.min(720, canvas.clientWidth || 640));
    if (now === width) return;
    width = now;
    replace(canvas, paint(now));
  }
  element.repaint = repaint;
  return element;
}

function repaintAll() {
  for (const element of document.querySelectorAll("figure")) if (element.repaint) element.repaint();
}

function ticks(low, high) {
  const rough = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const found = [];
  for (let place = Math.ceil(low / step); place * step <= high * (1 + 1e-9) + 1e-12; place += 1) found.push(Number((place * step).toPrecision(6)));
  return found;
}

function scale(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

function picture(width, height, label, ...children) {
  return draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, children);
}

function word(x, y, anchor, ...content) {
  return draw("text", { x, y, "text-anchor": anchor }, content);
}

function line(x1, y1, x2, y2, kind) {
  return draw("line", { x1, y1, x2, y2, class: kind });
}

function disc(x, y, place) {
  return draw("g", {}, draw("circle", { cx: x, cy: y, r: 9, class: colour(place) }),
    draw("text", { x, y: y + 4, "text-anchor": "middle", class: "in-disc" }, place + 1));
}

// Two axes with named scales; `paint(x, y)` gives what stands between them.
function axes(width, height, label, across, up, paint) {
  const x = scale(across.low, across.high, MARGIN.left, width - MARGIN.right);
  const y = scale(up.low, up.high, height - MARGIN.bottom, MARGIN.top);
  const bottom = height - MARGIN.bottom;
  const steps = ticks(across.low, across.high);
  const shown = width < 420 ? steps.filter((_, place) => place % 2 === 0) : steps;
  return picture(width, height, label,
    ticks(up.low, up.high).map((value) => [line(MARGIN.left, y(value), width - MARGIN.right, y(value), "grid"), word(MARGIN.left - 6, y(value) + 4, "end", amount(value))]),
    shown.map((value) => [line(x(value), MARGIN.top, x(value), bottom, "grid"), word(x(value), bottom + 16, "middle", amount(value))]),
    word((MARGIN.left + width - MARGIN.right) / 2, height - 6, "middle", across.name),
    paint(x, y));
}

function qualityAgainstCost(report, metric, cost) {
  const points = report.pipelines.map((pipeline) => [pipeline.means[metric.name], pipeline.means[cost.name]]);
  const known = points.filter(([quality, price]) => quality && price);
  const most = Math.max(...known.map(([, price]) => price.high), 0) || 1;
  const label = `${metric.name} against ${cost.name}: ` + report.pipelines.map((pipeline, place) =>
    `${pipeline.name} ${points[place][0] && points[place][1] ? `${score(points[place][0].mean)} at ${amount(points[place][1].mean)}` : "without a score"}`).join("; ");
  return figure(`${metric.name} (up) against ${cost.name} of a question, on average; lines are 95% intervals`, (width) =>
    axes(width, 300, label, { low: 0, high: most * 1.05, name: cost.name }, { low: metric.low, high: metric.high }, (x, y) =>
      points.map(([quality, price], place) => quality && price
        ? [line(x(price.low), y(quality.mean), x(price.high), y(quality.mean), `mark ${colour(place)}`),
          line(x(price.mean), y(quality.low), x(price.mean), y(quality.high), `mark ${colour(place)}`),
          disc(x(price.mean), y(quality.mean), place)]
        : [])),
  legend(report.pipelines.map((pipeline) => pipeline.name)));
}

// One row a mean: its name above, its interval on the scale of the metric, as a disc or a bar.
function rows(title, metric, entries, bars) {
  const tall = 42;
  const height = entries.length * tall + MARGIN.bottom;
  const label = `${title}: ` + entries.map((entry) => `${entry.name} ${interval(entry.mean, score)}`).join("; ");
  return figure(title, (width) => {
    const x = scale(metric.low, metric.high, MARGIN.right, width - MARGIN.right);
    return picture(width, height, label,
      ticks(metric.low, metric.high).map((value) => [line(x(value), 0, x(value), height - MARGIN.bottom + 4, "grid"), word(x(value), height - MARGIN.bottom + 20, "middle", amount(value))]),
      entries.map((entry, row) => {
        const y = row * tall + 28;
        const name = fitted(entry.name, Math.floor(width / 8) - 24);
        return [draw("text", { x: MARGIN.right, y: y - 13, class: "halo" }, `${name}: ${entry.mean ? interval(entry.mean, score) : "no score"}`),
          entry.mean && bars ? draw("rect", { x: x(metric.low), y: y - 7, width: Math.max(0, x(entry.mean.mean) - x(metric.low)), height: 14, class: `bar ${colour(entry.place)}` }) : null,
          entry.mean ? line(x(entry.mean.low), y, x(entry.mean.high), y, bars ? "mark over" : `mark ${colour(entry.place)}`) : null,
          entry.mean && !bars ? disc(x(entry.mean.mean), y, entry.place) : null];
      }));
  });
}

function fitted(text, length) {
  return text.length > length ? `${text.slice(0, Math.max(1, length - 1))}…` : text;
}

function intervals(report, metric) {
  const entries = report.pipelines.map((pipeline, place) => ({ name: pipeline.name, mean: pipeline.means[metric.name], place }));
  return rows(`${metric.name}: mean and 95% interval`, metric, entries, false);
}

function groupBars(report, metric, by, group) {
  const entries = report.pipelines.map((pipeline, place) => ({ name: pipeline.name, mean: group.means[pipeline.name][metric.name], place }));
  return rows(`${by} ${group.value}: ${metric.name} over ${some(group.questions, "question")}`, metric, entries, true);
}

function calibrationPlot(report, metric) {
  const found = report.pipelines.map((pipeline) => (report.calibration[pipeline.name] || {})[metric.name]);
  const label = `${metric.name} against confidence: ` + report.pipelines.map((pipeline, place) => !found[place] ? `${pipeline.name} has none`
    : `${pipeline.name} ${found[place].bins.map((bin) => `${score(bin.score)} at ${score(bin.confidence)} (${bin.n})`).join(", ")}`).join("; ");
  const remarks = found.map((one) => (one ? `(expected calibration error ${score(one.error)})` : "(has no confidence)"));
  return figure(`${metric.name} (up) against confidence, the exponential of the mean log-probability of a token; on the dashed line both agree`, (width) =>
    axes(width, 300, label, { low: 0, high: 1, name: "confidence" }, { low: 0, high: 1 }, (x, y) => [
      line(x(0), y(0), x(1), y(1), "ideal"),
      found.map((one, place) => one ? [
        draw("polyline", { points: one.bins.map((bin) => `${x(bin.confidence)},${y(bin.score)}`).join(" "), class: `path ${colour(place)}` }),
        one.bins.map((bin) => disc(x(bin.confidence), y(bin.score), place))] : []),
    ]),
  legend(report.pipelines.map((pipeline) => pipeline.name), remarks));
}
