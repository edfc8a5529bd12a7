"""The page of `rag serve` in a real browser, over a real server with scripted models and a small corpus."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from generators.cited import Cited
from generators.flare.flare import Flare
from rag.core.pipeline import Pipeline
from rag.core.trace import Judged, TextDelta, ToolCalled, emit
from rag.core.types import Passage
from rag.serve.app import create_app
from rag.serve.settings import Doors, Uploads
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from tests.browser.conftest import Opened
from tests.browser.test_looks import _CONTRASTS as CONTRASTS
from tests.generators.flare.conftest import Storyteller
from tests.rag.serve.parts import Scripted, listening

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.browser

WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 360, "height": 740}
QUESTION = "How long may a suit be worn outside?"
CITED = "A suit may be worn outside for 90 minutes [1]. 舱外服可以穿九十分钟 [1]."
HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script> ![x](http://evil.example/x.png) [y](javascript:alert(3))'
ARABIC = "كم من الوقت يمكن ارتداء البدلة في الخارج؟"
SUITS = "The suit of the crew is white. A suit may be worn outside for 90 minutes at most. 舱外服可以穿九十分钟。 Then its air is used up."
STORY = [" A suit is worn outside.", " It lasts 120 minutes."]
INFORMED = [" A suit is worn outside.", " It lasts 90 minutes."]

# Rust for a colour, an underline for those who do not see it.
_SHADES = """() => [...document.querySelectorAll(".answer [class^=p]")].map((one) => [one.textContent, one.className, one.title,
  getComputedStyle(one).textDecorationStyle])"""


async def watched(question: str) -> str:
    """A method that judges what it writes, and calls tools."""
    emit(ToolCalled("calculator", "45 * 2", "90"))
    emit(ToolCalled("calculator", "1/0", error="division by zero"))
    emit(Judged("It lasts 90 minutes.", "suits.md:0", 1.75, 0.9, 1.0, -0.5, 0.8))
    emit(Judged("It lasts for ever.", "", 0.1, 0.2, 0.0, -1.0, 0.3, True))
    emit(TextDelta("It lasts 90 minutes."))
    return "It lasts 90 minutes."


def corpus_in(folder: Path) -> Corpus:
    """Three documents; one means harm."""
    corpus = Corpus.create(folder, encoder=None)
    corpus.add_passages(
        [
            Passage("suits.md:0", SUITS, "suits.md", "Suits", 0, len(SUITS)),
            Passage("airlock.md:0", "The airlock opens outside in ten minutes.", "airlock.md", "Airlock", 0, 41),
            Passage("evil.md:0", f"Harmful suit worn outside harmful harmful {HOSTILE}", "evil.md", HOSTILE, 0, 20),
        ]
    )
    return corpus


def cited(corpus: Corpus, text: str, **options: Any) -> Pipeline:
    """search, called by answer, whose model writes ``text``."""
    return Pipeline().add("search", BM25(corpus)).add("answer", Cited(Scripted(text, **options), k=3)).connect("search", "answer.retriever")


def served(folder: Path, **options: Any) -> Any:
    """The application, with a pipeline for each thing that the page shows."""
    corpus = corpus_in(folder / "corpus")
    teller = Storyteller(story=STORY, informed=INFORMED, unsure={" 120": 0.3, " outside.": 0.75, " 90": 0.5})
    flare = Pipeline().add("search", BM25(corpus)).add("answer", Flare(teller, k=1)).connect("search", "answer.retriever")
    pipelines = {
        "cited": cited(corpus, CITED),
        "flare": flare,
        "watched": Pipeline().add("method", watched),
        "hostile": cited(corpus, f"Outside [1] {HOSTILE} [2] {ARABIC}"),
        "hanging": cited(corpus, CITED, hangs_at=4),
    }
    return create_app(pipelines, uploads=Uploads(corpus, folder / "spool"), **options)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listening(served(tmp_path_factory.mktemp("playground"))) as found:
        yield found


Visit = Callable[..., Opened]


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Opens the page in a context of its own; options are the context's."""
    opened: list[Opened] = []

    def visit(at: str = address, **options: Any) -> Opened:
        context = browser.new_context(**{"viewport": WIDE, **options})
        one = Opened(context.new_page(), at)
        opened.append(one)
        one.watch()
        one.page.set_default_timeout(5_000)
        one.page.goto(at)
        return one

    yield visit
    for one in opened:
        one.page.context.close()


@pytest.fixture
def opened(visit: Visit) -> Iterator[Opened]:
    """The page on a wide screen, with its models. In no test may it complain, or ask another server."""
    opened = visit()
    opened.page.locator("#first option").first.wait_for(state="attached")
    yield opened
    assert opened.problems == []
    assert {request.startswith((f"{opened.address}/", "data:")) for request in opened.requests} == {True}


def ask(opened: Opened, model: str, question: str = QUESTION) -> Locator:
    """Ask, and wait until the answer is there."""
    opened.page.get_by_role("combobox", name="Model", exact=True).select_option(model)
    opened.page.get_by_label("Question").fill(question)
    opened.page.get_by_role("button", name="Ask", exact=True).click()
    article = opened.page.get_by_role("article", name=f"Answer of {model}")
    article.locator(".state", has_text="Done in").wait_for()
    return article


def test_an_answer_streams_with_its_sources_its_tokens_and_its_nodes(opened: Opened) -> None:
    page = opened.page
    article = ask(opened, "cited")
    assert article.locator(".answer").inner_text() == CITED
    assert "40 tokens read, 12 written" in article.locator(".state").inner_text()
    assert article.locator(".sources .link").all_inner_texts()[0] == "Suits"
    assert article.locator("details > summary").first.inner_text() == "1 step"
    nodes = page.locator("figure.graph:visible .nodes li").all_inner_texts()
    assert [node.split("✓")[0].strip() for node in nodes] == ["search (BM25)", "answer (Cited)"]
    assert all("✓" in node for node in nodes)
    assert page.locator("figure.graph:visible svg g.done").count() == 2
    assert page.locator("#announcer").inner_text().startswith("cited answers: A suit may be worn")


def test_a_citation_opens_its_passage_and_marks_what_is_cited(opened: Opened) -> None:
    page = opened.page
    article = ask(opened, "cited")
    first, second = article.locator(".cite").all()
    assert first.get_attribute("aria-label") == "Source 1: Suits"
    panel = page.get_by_role("complementary", name="Suits")
    for button, marked in ((first, "A suit may be worn outside for 90 minutes at most."), (second, "舱外服可以穿九十分钟。")):
        button.click()
        assert panel.get_by_role("heading").inner_text() == "[1] Suits"
        assert panel.locator(".passage").inner_text() == SUITS
        assert panel.locator("mark").all_inner_texts() == [marked]
        assert "suits.md" in panel.inner_text()
        page.keyboard.press("Escape")
        assert panel.is_hidden()
        assert button.evaluate("element => element === document.activeElement")
    article.locator(".sources .link").first.click()
    assert panel.locator("mark").count() == 0
    panel.get_by_role("button", name="Close").click()
    assert panel.is_hidden()


def test_doubts_and_probabilities_are_shown_and_not_by_colour_alone(opened: Opened) -> None:
    page = opened.page
    legend = page.locator("#legend")
    ask(opened, "cited")
    assert legend.is_hidden()  # nothing to explain: this model tells no probabilities
    article = ask(opened, "flare")
    assert legend.is_visible()
    assert article.locator(".answer").inner_text().strip() == "A suit is worn outside.?1 It lasts 90 minutes."
    shades = {text.strip(): (kind, title, line) for text, kind, title, line in page.evaluate(_SHADES)}
    assert shades["outside."] == ("p2", "probability 0.750", "dotted")
    assert shades["90"] == ("p1", "probability 0.500", "dashed")
    assert shades["lasts"][:2] == ("p3", "probability 1.000")
    line = article.locator(".doubted")
    assert not line.is_visible()
    article.get_by_role("button", name="Doubt 1").click()
    assert "Doubts It lasts 120 minutes.: below 0.8 120 0.30. It searches for It lasts minutes." in " ".join(line.inner_text().split())
    assert line.locator("strong").evaluate("element => element === document.activeElement")


def test_judgements_and_calls_of_tools_are_shown(opened: Opened) -> None:
    article = ask(opened, "watched")
    article.locator("summary", has_text="4 steps").click()
    lines = [" ".join(line.split()) for line in article.locator(".steps > li").all_inner_texts()]
    assert lines[0] == "Called calculator with 45 * 2: 90"
    assert lines[1] == "Called calculator with 1/0: failed (division by zero)"
    assert lines[2].startswith("Judged It lasts 90 minutes. from suits.md:0 relevance 0.90 support 1.00 usefulness -0.50")
    assert "dropped: not supported" in lines[3]


def test_two_models_answer_side_by_side(opened: Opened) -> None:
    page = opened.page
    page.get_by_label("Compare two models").check()
    page.get_by_role("combobox", name="Second model").select_option("watched")
    article = ask(opened, "cited")
    other = page.get_by_role("article", name="Answer of watched")
    other.locator(".state", has_text="Done in").wait_for()
    assert (article.locator(".answer").inner_text(), other.locator(".answer").inner_text()) == (CITED, "It lasts 90 minutes.")
    left, right = article.bounding_box(), other.bounding_box()
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] <= right["x"]
    assert page.locator("figure.graph:visible figcaption").all_inner_texts() == ["cited", "watched"]
    page.get_by_label("Compare two models").uncheck()
    assert page.locator("figure.graph:visible").count() == 1


def test_another_model_brings_its_graph_and_its_yaml(opened: Opened) -> None:
    page = opened.page
    yaml = page.get_by_label("YAML")
    page.get_by_role("combobox", name="Model", exact=True).select_option("watched")
    assert page.locator("figure.graph:visible .nodes li").all_inner_texts() == ["method (watched)"]
    assert (yaml.input_value(), yaml.is_editable()) == ("", False)
    assert "there is no YAML" in page.locator("#yaml-state").inner_text()


def test_an_adapter_is_a_model_of_the_list(visit: Visit, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    from adapters.registry import Registry
    from generators.direct import Direct
    from tests.adapters.lorahub.parts import saved
    from tests.generators.models import lora_server

    registry = Registry(tmp_path / "registry")
    registry.add(saved(tmp_path / "law", r=4), "law")
    answers = Pipeline().add("answer", Direct(lora_server.model(lora_server.LoraServer()), max_tokens=16))
    with listening(create_app(answers, adapters=registry)) as at:
        opened = visit(at)
        opened.page.locator("#first option").first.wait_for(state="attached")
        assert ask(opened, "graft").locator(".answer").inner_text() == "base"
        assert ask(opened, "graft:law").locator(".answer").inner_text() == "law"
        assert opened.page.locator("figure.graph:visible figcaption").inner_text() == "graft:law"
        assert opened.page.locator("figure.graph:visible svg g.done").count() == 1
        assert "type: Direct" in opened.page.get_by_label("YAML").input_value()
        assert opened.page.locator("#upload").is_hidden()  # this server takes no documents
        assert opened.problems == []


def test_yaml_and_drawing_are_edited_in_step(visit: Visit, tmp_path: Path) -> None:
    from generators.models.vllm import VLLM

    corpus = corpus_in(tmp_path / "corpus")
    pipe = Pipeline().add("search", BM25(corpus)).add("answer", Cited(VLLM())).connect("search", "answer.retriever")
    with listening(create_app(pipe)) as at:
        opened = visit(at)
        page, yaml = opened.page, opened.page.get_by_label("YAML")
        state, nodes = page.locator("#yaml-state"), page.locator("figure.graph:visible .nodes li")
        nodes.first.wait_for()
        served = yaml.input_value()
        yaml.fill(served.replace("search", "find"))
        page.locator("#yaml-state", has_text="Drawn.").wait_for()
        assert nodes.all_inner_texts() == ["find (BM25)", "answer (Cited)"]
        assert page.locator("figure.graph:visible svg g text:first-of-type").all_text_contents() == ["find", "answer"]
        yaml.fill(served.replace("type: BM25", "type: BM26"))
        page.locator("#yaml-state", has_text="nodes.search").wait_for()
        assert "BM26" in state.inner_text()
        assert yaml.get_attribute("aria-invalid") == "true"
        assert nodes.all_inner_texts() == ["find (BM25)", "answer (Cited)"]  # the last one that could be drawn
        page.get_by_role("button", name="Reset").click()
        assert (yaml.input_value(), state.inner_text()) == (served, "")
        assert nodes.all_inner_texts() == ["search (BM25)", "answer (Cited)"]
        assert all("status of 400" in problem for problem in opened.problems)


def test_an_upload_tells_how_far_it_is_until_it_is_done(opened: Opened) -> None:
    page = opened.page
    page.get_by_label("Files to add").set_input_files(
        [
            {"name": "helmet.md", "mimeType": "text/markdown", "buffer": b"# Helmet\n\nThe zebrafish helmet weighs two kilograms.\n"},
            {"name": "broken.pdf", "mimeType": "application/pdf", "buffer": b"not a PDF"},
        ]
    )
    page.get_by_role("button", name="Upload").click()
    line = page.get_by_role("list", name="Uploads").locator("> li")
    line.locator(".state", has_text="done").wait_for(timeout=60_000)
    assert "1 added; 1 passages; left out broken.pdf" in line.inner_text()
    assert line.locator("progress").evaluate("bar => bar.value / bar.max") == 1
    assert "helmet.md" in page.locator("#announcer").inner_text()
    article = ask(opened, "cited", "What does the zebrafish helmet weigh?")
    assert "Helmet" in article.locator(".sources").inner_text()


def test_a_stopped_answer_says_so(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("combobox", name="Model", exact=True).select_option("hanging")
    page.get_by_label("Question").fill(QUESTION)
    stop = page.get_by_role("button", name="Stop")
    assert stop.get_attribute("aria-disabled") == "true"
    page.keyboard.press("Control+Enter")
    article = page.get_by_role("article", name="Answer of hanging")
    article.locator(".answer", has_text="A suit may be").wait_for()
    assert page.locator("figure.graph:visible svg g.running").count() == 1
    stop.click()
    article.locator(".state", has_text="Stopped").wait_for()
    assert article.locator(".cite").count() == 0
    assert stop.get_attribute("aria-disabled") == "true"


def test_hostile_text_stays_text(opened: Opened) -> None:
    page = opened.page
    article = ask(opened, "hostile", f"{HOSTILE} {ARABIC} harmful suit outside")
    assert HOSTILE in article.locator(".answer").inner_text()
    assert ARABIC in article.locator(".answer").inner_text()
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert HOSTILE in article.locator(".steps").inner_text()
    article.locator(".cite").first.click()
    assert HOSTILE in page.locator("#panel .passage").inner_text()
    assert HOSTILE in page.locator("#panel h2").inner_text()
    assert page.locator("body img, body script, body iframe, body a:not(.skip), [onerror]").count() == 0
    page.wait_for_timeout(200)  # what a request would need to start


def test_arabic_is_written_from_right_to_left(visit: Visit, tmp_path: Path) -> None:
    with listening(create_app(cited(corpus_in(tmp_path / "corpus"), ARABIC))) as at:
        opened = visit(at)
        opened.page.locator("#first option").first.wait_for(state="attached")
        answer = ask(opened, "graft").locator(".answer")
        opened.page.get_by_label("Question").fill(ARABIC)
        assert answer.evaluate("element => getComputedStyle(element).direction") == "rtl"
        assert opened.page.get_by_label("Question").evaluate("element => getComputedStyle(element).direction") == "rtl"


def test_a_key_is_asked_for_and_sent_in_a_header_only(visit: Visit, tmp_path: Path) -> None:
    with listening(served(tmp_path, doors=Doors(secret="s3cret-key"))) as at:
        opened = visit(at)
        page = opened.page
        page.get_by_role("alert").wait_for()
        assert page.get_by_role("alert").inner_text() == "This server asks for a key: type it in above."
        page.get_by_label("API key").fill("wrong")
        page.keyboard.press("Tab")
        page.get_by_role("alert").filter(has_text="wrong, expired or missing").wait_for()
        page.get_by_label("API key").fill("s3cret-key")
        page.keyboard.press("Tab")
        page.locator("#first option").first.wait_for(state="attached")
        assert page.get_by_role("alert").is_hidden()
        ask(opened, "cited")
        page.get_by_label("Files to add").set_input_files({"name": "a.md", "mimeType": "text/markdown", "buffer": b"# A\n\nText.\n"})
        page.get_by_role("button", name="Upload").click()
        page.locator(".jobs .state", has_text="done").wait_for(timeout=60_000)
        assert not any("s3cret" in request for request in opened.requests)
        assert page.evaluate("JSON.stringify([document.cookie, {...localStorage}])").count("s3cret") == 0
        assert all("status of 401" in problem for problem in opened.problems)


def test_errors_are_said_in_words(visit: Visit, tmp_path: Path) -> None:
    from rag.core.errors import ModelUnavailable

    corpus = corpus_in(tmp_path / "corpus")
    with listening(create_app(cited(corpus, CITED, error=ModelUnavailable("down")))) as at:
        opened = visit(at)
        page = opened.page
        page.locator("#first option").first.wait_for(state="attached")
        page.get_by_label("Question").fill(QUESTION)
        page.keyboard.press("Control+Enter")
        page.locator(".state.failed", has_text="the language model does not answer").wait_for()
    page.keyboard.press("Control+Enter")
    page.locator(".state.failed", has_text="The server cannot be reached.").wait_for()


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
