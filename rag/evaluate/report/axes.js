"use strict";
// What plots are made of. They are drawn to the width at hand, so that their text keeps its size on a small screen.

const MARGIN = { left: 40, right: 16, top: 36, bottom: 46 };
const COLOURS = 8;
const LETTER = 7.6;

const sheet = document.createElement("canvas");
const pen = sheet.getContext ? sheet.getContext("2d") : null;

// Pixels that a text in a plot takes.
function wide(text) {
  if (!pen) return LETTER * text.length;
  pen.font = "13px system-ui, sans-serif";
  return pen.measureText(text).width;
}

// As much of the text as fits into so many pixels.
function cut(text, width) {
  if (wide(text) <= width) return text;
  const letters = Array.from(text);
  while (letters.length > 1 && wide(`${letters.join("")}…`) > width) letters.pop();
  return `${letters.join("")}…`;
}

function colour(place) {
  return `s${place % COLOURS}`;
}

// A figure that draws itself again when its width changes.
function figure(caption, paint) {
  const canvas = make("div", { class: "canvas" });
  const element = make("figure", {}, make("figcaption", {}, caption), canvas);
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

// Labels of ticks must not run into each other.
function spaced(low, high, width) {
  const steps = ticks(low, high);
  const room = LETTER * (1 + Math.max(...steps.map((value) => amount(value).length)));
  const every = Math.ceil(room / (width / Math.max(1, steps.length - 1)));
  return steps.filter((_, place) => place % every === 0);
}

function scale(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

function picture(width, height, label, ...children) {
  return draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, children);
}

function word(x, y, anchor, kind, ...content) {
  return draw("text", { x, y, "text-anchor": anchor, class: kind }, content);
}

function line(x1, y1, x2, y2, kind) {
  return draw("line", { x1, y1, x2, y2, class: kind });
}

function dot(x, y, radius, place) {
  return draw("circle", { cx: x, cy: y, r: radius, class: colour(place) });
}

// The scale below a plot, from `top` down to its name.
function bottomAxis(x, across, left, right, top, bottom) {
  return [
    spaced(across.low, across.high, right - left).map((value) => [line(x(value), top, x(value), bottom, "grid"), word(x(value), bottom + 16, "middle", "axis", amount(value))]),
    line(left, bottom, right, bottom, "base"),
    word((left + right) / 2, bottom + 36, "middle", "axis", across.name)];
}

// Two axes with named scales; `paint(x, y)` gives what stands between them.
function axes(width, height, label, across, up, paint) {
  const [left, right, bottom] = [MARGIN.left, width - MARGIN.right, height - MARGIN.bottom];
  const x = scale(across.low, across.high, left, right);
  const y = scale(up.low, up.high, bottom, MARGIN.top);
  return picture(width, height, label,
    ticks(up.low, up.high).map((value) => [line(left, y(value), right, y(value), "grid"), word(left - 6, y(value) + 4, "end", "axis", amount(value))]),
    bottomAxis(x, across, left, right, MARGIN.top, bottom),
    word(0, 12, "start", "axis", `↑ ${up.name}`),
    paint(x, y));
}

// Names beside points, where there is room: [{ x, y, text }] within a box; gives their texts as elements.
function labels(points, box) {
  const taken = points.map((point) => ({ left: point.x - 7, right: point.x + 7, top: point.y - 7, bottom: point.y + 7 }));
  return points.map((point) => {
    const long = wide(point.text);
    const steps = Array.from({ length: 16 }, (_, step) => [-8 - 16 * step, 17 + 16 * step]).flat();
    const places = steps.flatMap((down) => [9, -9].map((aside) => ({ aside, y: point.y + down })));
    const areas = places.map(({ aside, y }) => {
      const left = aside > 0 ? point.x + aside : point.x + aside - long;
      return { aside, y, left, right: left + long, top: y - 12, bottom: y + 4 };
    });
    const fits = (area) => area.left >= box.left && area.right <= box.right && area.top >= box.top && area.bottom <= box.bottom;
    const free = (area) => taken.every((other) => area.right < other.left || area.left > other.right || area.bottom < other.top || area.top > other.bottom);
    const area = areas.find((one) => fits(one) && free(one)) || areas.find(fits) || areas[0];
    taken.push(area);
    return word(point.x + area.aside, area.y, area.aside > 0 ? "start" : "end", "halo", point.text);
  });
}
