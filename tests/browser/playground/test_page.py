"""What the page shows and does."""

from __future__ import annotations

from pathlib import Path

import pytest

from generators.cited import Cited
from rag.core.pipeline import Pipeline
from rag.serve.app import create_app
from rag.serve.settings import Doors
from retrievers.bm25 import BM25
from tests.browser.conftest import Opened
from tests.browser.playground.parts import ARABIC, CITED, HOSTILE, QUESTION, SHADES, SUITS, Visit, ask, cited, corpus_in, served
from tests.rag.serve.parts import listening

pytestmark = pytest.mark.browser


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
    shades = {text.strip(): (kind, title, line) for text, kind, title, line in page.evaluate(SHADES)}
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
