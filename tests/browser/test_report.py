"""The evaluation report in a real browser: what a reader can do with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rag.evaluate.compare import Comparison
from tests.browser.comparison import COUNT, HOSTILE, LONG
from tests.browser.conftest import Open, Opened

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = pytest.mark.browser


def listed(page: Page) -> list[str]:
    return page.locator(".questions button > span:first-child").all_inner_texts()


def entry(page: Page, text: str) -> Locator:
    return page.locator(".questions button", has_text=text).first


def detail(page: Page) -> Locator:
    return page.get_by_role("article", name="Chosen question")


def chosen(page: Page) -> str:
    return detail(page).locator("h3").inner_text()


def test_all_of_it_can_be_opened_without_a_message_or_a_request(opened: Opened) -> None:
    page = opened.page
    for select in page.locator("select").all():
        for value in select.locator("option").evaluate_all("options => options.map(option => option.value)"):
            select.select_option(value)
            assert page.locator("svg").count() > 5
    opened.control("questions", "Show").select_option("all")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.locator("#configurations pre").first.is_visible()
    assert page.get_by_role("heading", level=2).all_inner_texts() == ["Figures", "Failures", "Plots", "Questions", "Configurations"]


def test_the_policy_holds_in_the_browser(visit: Open) -> None:
    opened = visit()
    opened.page.evaluate(
        """() => {
            document.body.setAttribute("style", "color: red");
            document.body.appendChild(document.createElement("script")).textContent = "window.ran = true";
            document.body.appendChild(document.createElement("img")).src = "http://127.0.0.1:9/x.png";
        }"""
    )
    assert opened.page.evaluate("window.ran") is None
    assert opened.page.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    assert sum("Content Security Policy" in problem for problem in opened.problems) == 3


def test_the_table_says_what_was_measured(opened: Opened, comparison: Comparison) -> None:
    rows = opened.page.locator("#figures table").first.locator("tbody tr")
    assert rows.count() == 3
    mean = comparison.result("cited").means["squad2_f1"]
    assert mean is not None
    cells = rows.nth(1).locator("td").all_inner_texts()
    assert cells[0].split() == ["6", "of", "64"]
    assert cells[2].split() == [f"{mean.mean:.3f}", "▲", f"[{mean.low:.3f},", f"{mean.high:.3f}]"]
    assert "▲" not in rows.nth(0).inner_text()
    assert opened.page.locator("#failures tbody tr").count() == 1


def test_a_question_shows_its_answers_gold_passages_and_trace(opened: Opened) -> None:
    page = opened.page
    entry(page, "Archimedes 6").click()
    assert chosen(page) == "In which year was Archimedes 6 mapped?"
    assert entry(page, "Archimedes 6").get_attribute("aria-current") == "true"
    assert detail(page).evaluate("element => element === document.activeElement")
    flare = detail(page).get_by_label("3: flare-over-a-fused-index")
    assert "1606 [1]" in flare.locator(".answer").inner_text()
    assert (
        "Archimedes 6 is an impact crater. It was mapped in 1606"
        in detail(page).locator("details", has_text="Gold passage").first.inner_text()
    )
    passages = flare.locator("details", has_text="Retrieved passages (5, 1 gold)")
    assert not passages.locator("li").first.is_visible()
    passages.locator("summary").click()
    assert passages.locator("li").first.locator(".tag").all_inner_texts() == ["gold", "cited"]
    trace = flare.locator("details", has_text="Trace")
    trace.locator("summary").click()
    assert trace.locator(".step strong").all_inner_texts() == ["pipeline", "search", "bm25", "dense", "answer"]
    assert "the window was cut to 4,096 tokens" in trace.inner_text()


def test_a_failed_and_a_refused_question_say_so(opened: Opened) -> None:
    page = opened.page
    entry(page, "Tycho 9").click()
    assert "Failed: ModelUnavailable" in detail(page).get_by_label("2: cited").inner_text()
    page.get_by_label("Search").fill("unanswerable")
    assert page.locator(".questions button").count() == COUNT // 4
    entry(page, "Aristarchus 63").click()
    assert "(none: refusing is right)" in detail(page).inner_text()
    assert "It refused to answer." in detail(page).inner_text()


def test_search_filters_and_pages(opened: Opened, comparison: Comparison) -> None:
    page = opened.page
    count, show = page.locator("#questions [role=status]").first, opened.control("questions", "Show")
    assert len(listed(page)) == 50
    page.get_by_role("button", name="Show more").click()
    assert len(listed(page)) == COUNT
    assert page.get_by_role("button", name="Show more").is_hidden()
    show.select_option("failed")
    assert count.inner_text() == f"6 questions of {COUNT}"
    assert "Tycho 9" in chosen(page)
    opened.control("questions", "Pipeline").select_option("0")
    assert count.inner_text() == f"0 questions of {COUNT}"
    assert detail(page).inner_text() == "No question is like that."
    show.select_option("right")
    right = sum(score == 1 for score in comparison.result("direct").scores["match"])
    assert 0 < right < COUNT
    assert len(listed(page)) == right
    show.select_option("all")
    page.get_by_label("Search").fill("pLaTo 10")
    assert listed(page) == ["In which year was Plato 10 mapped?"]


def test_next_and_previous_walk_through_what_was_found(opened: Opened) -> None:
    page = opened.page
    page.get_by_label("Search").fill("copernicus")
    assert len(listed(page)) == 7
    before, after = page.get_by_role("button", name="Previous"), page.get_by_role("button", name="Next")
    assert before.get_attribute("aria-disabled") == "true"
    for n in (16, 24):
        after.click()
        assert chosen(page) == f"In which year was Copernicus {n} mapped?"
    before.click()
    assert page.locator(".questions [aria-current]").count() == 1
    assert "Copernicus 16" in page.locator(".questions [aria-current]").inner_text()
    page.get_by_label("Search").fill("")
    for _ in range(40):
        after.click()
    assert "57 of 64" in page.locator(".steps").inner_text()
    assert page.locator(".questions [aria-current]").is_visible()


def test_the_keyboard_alone_is_enough(opened: Opened) -> None:
    page = opened.page
    press = page.keyboard.press

    def focused(what: str) -> bool:
        return bool(page.evaluate("what => document.activeElement.matches(what)", what))

    def tab_to(what: str) -> None:
        for _ in range(40):
            press("Tab")
            if focused(what):
                return
        raise AssertionError(f"no {what} in forty presses of Tab")

    press("Tab")
    assert focused(".skip")
    assert page.locator(".skip").bounding_box()["x"] >= 0  # type: ignore[index]
    press("Enter")
    assert focused("main")
    tab_to("#figures .scroll")
    tab_to("#plots select")
    tab_to("#questions input[type=search]")
    page.keyboard.type("mapped")
    tab_to(".questions button")
    for _ in range(3):
        press("ArrowDown")
    press("ArrowUp")
    press("Enter")
    assert chosen(page) == "In which year was Aristarchus 7 mapped?"
    assert focused("article.detail")
    tab_to("article.detail summary")
    tab_to("article.detail .outcome summary")
    assert not page.locator(".trace").first.is_visible()
    press("Enter")
    assert page.locator(".trace").first.is_visible()


def test_hostile_text_stays_text(opened: Opened) -> None:
    page = opened.page
    assert listed(page)[: len(HOSTILE)] == list(HOSTILE)
    for text in HOSTILE:
        entry(page, text).click()
        assert chosen(page) == text
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert all(text in answer for answer in detail(page).locator(".answer").all_inner_texts())
    entry(page, HOSTILE[0]).click()
    assert LONG in detail(page).inner_text()
    assert page.locator("script").count() == 2
    assert page.locator("img, iframe, object, embed, link, [onerror], [src]").count() == 0
    arabic = page.locator(".questions span", has_text=HOSTILE[2]).first
    assert arabic.evaluate("element => getComputedStyle(element).direction") == "rtl"
