"""Who can use the page: by keyboard, with a screen reader, on a phone, in the dark."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Opened
from tests.browser.playground.parts import NARROW, QUESTION, Visit, ask
from tests.browser.test_looks import CONTRASTS

pytestmark = pytest.mark.browser


def test_the_keyboard_alone_is_enough(opened: Opened) -> None:
    page = opened.page
    press = page.keyboard.press

    def focused(what: str) -> bool:
        return bool(page.evaluate("what => document.activeElement.matches(what)", what))

    def tab_to(what: str, most: int = 40) -> None:
        for _ in range(most):
            press("Tab")
            if focused(what):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline == "solid", what
                return
        raise AssertionError(f"no {what} in {most} presses of Tab")

    press("Tab")
    assert focused(".skip")
    press("Enter")
    assert focused("#question")
    page.keyboard.type(QUESTION)
    for control in ("#first", "#compare", "#go", "#stop"):
        tab_to(control, 1)
    press("Shift+Tab")
    press("Enter")
    page.locator(".state", has_text="Done in").wait_for()
    tab_to(".cite")
    press("Enter")
    assert focused("#panel")
    tab_to("#panel button", 1)
    press("Enter")
    assert page.locator("#panel").is_hidden()
    assert focused(".cite")
    for control in (".sources .link", "article summary", ".graph .scroll", "#yaml", "#files"):
        tab_to(control)


def test_every_control_has_a_name_and_every_part_a_place(opened: Opened) -> None:
    page = opened.page
    ask(opened, "flare").locator("summary").first.click()
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen = [node for node in tree if not node.get("ignored")]

    def named(node: Any) -> str:
        return str(node.get("name", {}).get("value", "")).strip()

    def can_focus(node: Any) -> bool:
        return any(one["name"] == "focusable" and one["value"]["value"] for one in node.get("properties", []))

    controls = [node for node in seen if can_focus(node) and node["role"]["value"] not in ("RootWebArea", "option", "MenuListPopup")]
    assert len(controls) > 12
    unnamed = [node["role"]["value"] for node in controls if not named(node)]
    assert unnamed == ["strong"]  # the number of the doubt: a place to jump to, and no control
    roles = [node["role"]["value"] for node in seen]
    for landmark in ("banner", "main"):
        assert roles.count(landmark) == 1
    assert {named(node) for node in seen if node["role"]["value"] == "region"} >= {"Ask", "Answers", "Pipeline", "Documents"}
    levels = page.locator("h1:visible, h2:visible, h3:visible, h4:visible").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert page.locator("#announcer").get_attribute("aria-live") == "polite"
    assert page.locator(".answer").evaluate("element => element.closest('[aria-live]')") is None  # not token by token
    ids = page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("chosen", [False, True])
def test_texts_stand_out_from_their_ground(visit: Visit, scheme: Any, chosen: bool) -> None:
    other = {"light": "dark", "dark": "light"}[scheme]
    opened = visit(color_scheme=other if chosen else scheme)
    page = opened.page
    page.locator("#first option").first.wait_for(state="attached")
    if chosen:
        page.get_by_role("combobox", name="Colours").select_option(scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    seen = 0
    for model in ("flare", "watched", "cited"):
        ask(opened, model)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        if model == "cited":
            page.locator(".cite").first.click()
        found = page.evaluate(CONTRASTS)
        seen += len(found)
        assert [(round(ratio, 2), text) for ratio, text in found if ratio < 4.5] == []
    assert seen > 150


def test_a_narrow_screen_scrolls_one_way_only(visit: Visit) -> None:
    opened = visit(viewport=NARROW, has_touch=True)
    page = opened.page
    page.locator("#first option").first.wait_for(state="attached")
    page.get_by_label("Compare two models").check()
    page.get_by_role("combobox", name="Second model").select_option("cited")
    for model in ("hostile", "flare", "watched"):
        ask(opened, model, "舱外服可以在外面穿多长时间" * 20 + "W" * 200 + " suit")
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    page.get_by_role("article", name="Answer of cited").locator(".cite").first.tap()
    panel = page.locator("#panel").bounding_box()
    assert panel is not None
    assert panel["x"] == 0
    assert panel["width"] == NARROW["width"]
    assert panel["y"] + panel["height"] <= NARROW["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_nothing_moves_for_those_who_ask_for_stillness(visit: Visit) -> None:
    found = {}
    for motion in ("reduce", "no-preference"):
        opened = visit(reduced_motion=motion)
        page = opened.page
        page.locator("#first option").first.wait_for(state="attached")
        page.get_by_role("combobox", name="Model", exact=True).select_option("hanging")
        page.get_by_label("Question").fill(QUESTION)
        page.keyboard.press("Control+Enter")
        running = page.locator("figure.graph:visible svg g.running rect").first
        running.wait_for()
        found[motion] = running.evaluate("element => getComputedStyle(element).animationName")
        page.get_by_role("button", name="Stop").click()
    assert found == {"reduce": "none", "no-preference": "march"}


@pytest.mark.skipif(not os.environ.get("GRAFT_AXE"), reason="GRAFT_AXE does not name a copy of axe-core's axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(visit: Visit, scheme: Any) -> None:
    opened = visit(color_scheme=scheme)
    page = opened.page
    page.locator("#first option").first.wait_for(state="attached")
    for model in ("flare", "watched", "cited"):
        ask(opened, model)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        if model == "cited":
            page.locator(".cite").first.click()
        page.evaluate(Path(os.environ["GRAFT_AXE"]).read_text("utf-8"))
        found = page.evaluate("axe.run().then(({violations}) => violations.map(one => [one.impact, one.id, one.nodes.map(n => n.html)]))")
        assert [one for one in found if one[0] in ("serious", "critical")] == []
