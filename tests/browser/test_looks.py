"""The evaluation report in a real browser: whether it can be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.evaluate.compare import Comparison, compare
from rag.evaluate.report import write_report
from tests.browser.conftest import Open, Opened

pytestmark = pytest.mark.browser

WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 360, "height": 740}

CONTRASTS = """() => {
  const channels = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = (colour) => channels(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) => element.getClientRects().length
    && [...element.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim()));
  return texts.map((element) => {
    const style = getComputedStyle(element);
    const colour = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [low, high] = [light(colour), light(ground(element))].sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), element.textContent.slice(0, 40)];
  });
}"""

_PLOTS = """() => [...document.querySelectorAll("figure svg")].map((svg) => {
  const frame = svg.getBoundingClientRect();
  const box = (element) => element.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")];
  const marks = [...svg.querySelectorAll("circle, rect, .mark")];
  const shared = (a, b, from, to) => Math.min(a[to], b[to]) - Math.max(a[from], b[from]);
  const meet = (a, b) => shared(a, b, "left", "right") > 1 && shared(a, b, "top", "bottom") > 3;
  const outside = (b) => b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1;
  return {
    label: svg.getAttribute("aria-label"),
    marks: marks.length,
    axes: texts.filter((text) => text.matches(".axis") && /[a-z]/.test(text.textContent)).map((text) => text.textContent),
    outside: [...texts, ...marks].filter((one) => outside(box(one))).map((one) => one.textContent || one.tagName),
    overlapping: texts.flatMap((one, i) => texts.slice(i + 1).filter((other) => meet(box(one), box(other)))
      .map((other) => `${one.textContent} | ${other.textContent}`)),
    shown: frame.width > 200 && frame.height > 60,
  };
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(visit: Open, scheme: str) -> None:
    page = visit(viewport=WIDE, color_scheme=scheme).page
    page.locator(".questions button").nth(9).click()
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 300
    assert [(round(ratio, 2), text) for ratio, text in found if ratio < 4.5] == []


def test_a_narrow_screen_scrolls_one_way_only(visit: Open) -> None:
    page = visit(viewport=NARROW, has_touch=True).page
    for n in range(6):
        page.locator(".questions button").nth(n).tap()
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    box = page.locator("article.detail").bounding_box()
    assert box is not None
    assert -1 <= box["y"] < NARROW["height"]  # choosing brings it into sight
    assert page.locator("#figures .scroll").first.evaluate("element => element.scrollWidth > element.clientWidth")


@pytest.mark.parametrize("viewport", [WIDE, NARROW])
def test_plots_are_whole_and_legible(visit: Open, viewport: dict[str, int]) -> None:
    opened = visit(viewport=viewport)
    score, cost = opened.control("plots", "Score"), opened.control("plots", "Cost")
    for metric in ("match", "squad2_f1", "recall@5", "citation_precision"):
        score.select_option(metric)
        for price in ("calls", "prompt_tokens", "seconds"):
            cost.select_option(price)
            found = opened.page.evaluate(_PLOTS)
            starts = (
                f"{metric}: mean",
                f"{metric} against {price}",
                "type bridge",
                "answerable answerable",
                f"{metric} against confidence: cited",
            )
            assert all(any(plot["label"].startswith(start) for plot in found) for start in starts)
            for plot in found:
                assert plot["shown"], plot
                assert plot["marks"] >= 2, plot
                assert plot["outside"] == [], plot
                assert plot["overlapping"] == [], plot
                assert len(plot["axes"]) >= 1 + (" against " in plot["label"]), plot


@pytest.mark.parametrize("viewport", [WIDE, NARROW])
def test_many_pipelines_with_long_names_and_equal_scores_stay_apart(
    visit: Open, comparison: Comparison, tmp_path: Path, viewport: dict[str, int]
) -> None:
    names = ("a", "W" * 60, "检索增强生成" * 5, "طريقة الاسترجاع", "x-" * 40, "b", "c", "d", "e")
    outcomes = comparison.results[0].outcomes
    write_report(compare(comparison.data, dict.fromkeys(names, outcomes), ("match", "calls")), tmp_path / "many.html")
    opened = visit(tmp_path / "many.html", viewport=viewport)
    found = opened.page.evaluate(_PLOTS)
    assert len(found) >= 2 + len(names)
    for plot in found:
        assert (plot["outside"], plot["overlapping"]) == ([], []), plot
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.problems == []


def test_plots_follow_the_width(opened: Opened) -> None:
    page = opened.page
    page.set_viewport_size({"width": 360, "height": 740})
    widths = page.locator("figure svg").evaluate_all("all => all.map(svg => svg.getBoundingClientRect().right)")
    assert len(widths) > 5
    assert max(widths) <= NARROW["width"]
    page.emulate_media(media="print")
    assert page.locator("#plots .controls").is_hidden()
