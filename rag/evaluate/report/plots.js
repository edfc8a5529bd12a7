"use strict";
// The plots: means with their intervals, quality against cost, a plot for each group of questions, and calibration.

// A pipeline's number and as much of its name as fits; the name keeps its own direction.
function named(report, place, width) {
  const number = `${place + 1} `;
  return number + isolated(cut(report.pipelines[place].name, width - wide(number)));
}

function qualityAgainstCost(report, metric, cost) {
  const points = report.pipelines.map((pipeline) => ({ quality: pipeline.means[metric.name], price: pipeline.means[cost.name] }));
  const known = points.map((point, place) => ({ ...point, place })).filter(({ quality, price }) => quality && price);
  const most = Math.max(...known.map(({ price }) => price.high), 0) || 1;
  const label = `${metric.name} against ${cost.name}: ` + points.map(({ quality, price }, place) =>
    `${report.pipelines[place].name} ${quality && price ? `${score(quality.mean)} at ${amount(price.mean)}` : "without a score"}`).join("; ");
  return figure([make("strong", {}, `${metric.name} against ${cost.name}`), make("span", { class: "note" }, "mean of a question; lines are 95% intervals")], (width) =>
    axes(width, 320, label, { low: 0, high: most * 1.08, name: `${cost.name} of a question` }, { low: metric.low, high: metric.high, name: metric.name }, (x, y) => [
      known.map(({ quality, price, place }) => [
        line(x(price.low), y(quality.mean), x(price.high), y(quality.mean), `mark ${colour(place)}`),
        line(x(price.mean), y(quality.low), x(price.mean), y(quality.high), `mark ${colour(place)}`),
        dot(x(price.mean), y(quality.mean), 6, place)]),
      labels(known.map(({ quality, price, place }) => ({ x: x(price.mean), y: y(quality.mean), text: named(report, place, width / 2.5) })),
        { left: MARGIN.left, right: width, top: MARGIN.top - 16, bottom: 320 - MARGIN.bottom }),
    ]));
}

// One row a mean: its name above, its interval on the scale of the metric, as a dot or a bar.
function rows(report, caption, label, metric, means, bars) {
  const tall = 42;
  const bottom = means.length * tall + 4;
  const spoken = `${label}: ` + means.map((mean, place) => `${report.pipelines[place].name} ${interval(mean, score)}`).join("; ");
  return figure(caption, (width) => {
    const [left, right] = [8, width - MARGIN.right];
    const x = scale(metric.low, metric.high, left, right);
    return picture(width, bottom + MARGIN.bottom, spoken,
      bottomAxis(x, { low: metric.low, high: metric.high, name: metric.name }, left, right, 0, bottom),
      means.map((mean, place) => {
        const y = place * tall + 29;
        const found = `: ${mean ? interval(mean, score) : "no score"}`;
        return [word(left, y - 13, "start", "halo", named(report, place, right - left - wide(found)), found),
          mean && bars ? draw("rect", { x: x(metric.low), y: y - 7, width: Math.max(0, x(mean.mean) - x(metric.low)), height: 14, class: `bar ${colour(place)}` }) : null,
          mean ? line(x(mean.low), y, x(mean.high), y, bars ? "mark over" : `mark ${colour(place)}`) : null,
          mean && !bars ? dot(x(mean.mean), y, 6, place) : null];
      }));
  });
}

function intervals(report, metric) {
  const caption = [make("strong", {}, `${metric.name} of each pipeline`), make("span", { class: "note" }, "mean and 95% interval")];
  return rows(report, caption, `${metric.name}: mean and 95% interval`, metric, report.pipelines.map((pipeline) => pipeline.means[metric.name]), false);
}

function groupBars(report, metric, by, group) {
  const caption = [make("strong", { dir: "auto" }, group.value), make("span", { class: "note" }, some(group.questions, "question"))];
  const label = `${by} ${group.value}: ${metric.name} over ${some(group.questions, "question")}`;
  return rows(report, caption, label, metric, report.pipelines.map((pipeline) => group.means[pipeline.name][metric.name]), true);
}

// A plot for each pipeline: bars are the scores of the answers in a tenth of the confidence, dots stand at their mean confidence.
function calibrationPlots(report, metric) {
  return report.pipelines.flatMap((pipeline, place) => {
    const found = (report.calibration[pipeline.name] || {})[metric.name];
    if (!found) return [];
    const label = `${metric.name} against confidence: ${pipeline.name} ${found.bins.map((bin) => `${score(bin.score)} at ${score(bin.confidence)} (${bin.n})`).join(", ")}`;
    const answers = found.bins.reduce((sum, bin) => sum + bin.n, 0);
    const caption = [make("strong", {}, pipelineName(pipeline.name, place)),
      make("span", { class: "note" }, `expected calibration error ${score(found.error)} over ${some(answers, "answer")}`)];
    return [figure(caption, (width) =>
      axes(width, 300, label, { low: 0, high: 1, name: "confidence" }, { low: 0, high: 1, name: metric.name }, (x, y) => [
        found.bins.map((bin) => draw("rect", { x: x(bin.low) + 1, y: y(bin.score), width: Math.max(1, x(bin.high) - x(bin.low) - 2), height: y(0) - y(bin.score), class: `bar ${colour(place)}` })),
        line(x(0), y(0), x(1), y(1), "ideal"),
        found.bins.map((bin) => [dot(x(bin.confidence), y(bin.score), 4, place), word(x((bin.low + bin.high) / 2), y(bin.score) - 10, "middle", "count halo", short(bin.n))]),
      ]))];
  });
}

function short(count) {
  return count < 1000 ? String(count) : `${amount(Number((count / 1000).toPrecision(2)))}k`;
}
