"""A real server with scripted models and a small corpus, for the page of `rag serve`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.cited import Cited
from generators.flare.flare import Flare
from rag.core.pipeline import Pipeline
from rag.core.trace import Judged, TextDelta, ToolCalled, emit
from rag.core.types import Passage
from rag.serve.app import create_app
from rag.serve.settings import Uploads
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from tests.browser.conftest import Opened
from tests.generators.flare.conftest import Storyteller
from tests.rag.serve.parts import Scripted

if TYPE_CHECKING:
    from playwright.sync_api import Locator

Visit = Callable[..., Opened]
"""Opens the page in a context of its own; options are the context's."""

WIDE, NARROW = {"width": 1200, "height": 900}, {"width": 360, "height": 740}
QUESTION = "How long may a suit be worn outside?"
CITED = "A suit may be worn outside for 90 minutes [1]. 舱外服可以穿九十分钟 [1]."
HOSTILE = '<img src=x onerror="alert(1)"><script>alert(2)</script> ![x](http://evil.example/x.png) [y](javascript:alert(3))'
ARABIC = "كم من الوقت يمكن ارتداء البدلة في الخارج؟"
SUITS = "The suit of the crew is white. A suit may be worn outside for 90 minutes at most. 舱外服可以穿九十分钟。 Then its air is used up."
STORY = [" A suit is worn outside.", " It lasts 120 minutes."]
INFORMED = [" A suit is worn outside.", " It lasts 90 minutes."]

# Rust for a colour, an underline for those who do not see it.
SHADES = """() => [...document.querySelectorAll(".answer [class^=p]")].map((one) => [one.textContent, one.className, one.title,
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


def ask(opened: Opened, model: str, question: str = QUESTION) -> Locator:
    """Ask, and wait until the answer is there."""
    opened.page.get_by_role("combobox", name="Model", exact=True).select_option(model)
    opened.page.get_by_label("Question").fill(question)
    opened.page.get_by_role("button", name="Ask", exact=True).click()
    article = opened.page.get_by_role("article", name=f"Answer of {model}")
    article.locator(".state", has_text="Done in").wait_for()
    return article
