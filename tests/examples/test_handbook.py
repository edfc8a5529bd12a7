"""The example handbook keeps the promises of its README: pages, questions, proofs and reproducible PDFs."""

from __future__ import annotations

import html
import importlib.util
import json
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook"
DOCS = HANDBOOK / "docs"
FIELDS = {"id", "question", "answers", "type", "gold", "language"}
INLINE = re.compile(r"</?(a|abbr|b|code|em|i|span|strong)\b[^>]*>")

pytest.importorskip("pypdf", reason="the PDF pages are read with pypdf")


def normalised(text: str) -> str:
    return " ".join(text.split())


def html_text(source: str) -> str:
    body = re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", source)
    return html.unescape(re.sub(r"<[^>]*>", " ", INLINE.sub("", body)))


def pdf_text(path: Path) -> str:
    from pypdf import PdfReader

    return "\n".join(page.extract_text() for page in PdfReader(path).pages)


def page_text(path: Path) -> str:
    if path.suffix == ".pdf":
        return normalised(pdf_text(path))
    source = path.read_text(encoding="utf-8")
    return normalised(html_text(source) if path.suffix == ".html" else source)


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {path.relative_to(DOCS).as_posix(): page_text(path) for path in sorted(DOCS.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HANDBOOK / "questions.jsonl").read_text(encoding="utf-8").splitlines()]


def of_type(questions: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    chosen = [question for question in questions if question["type"] == kind]
    assert chosen
    return chosen


def proves(question: dict[str, Any], quote: str) -> bool:
    return any(answer in quote for answer in question["answers"])


# The pages


def test_forty_pages_in_three_formats(pages: dict[str, str]) -> None:
    assert Counter(Path(name).suffix for name in pages) == {".md": 24, ".html": 10, ".pdf": 6}


def test_pages_have_the_length_of_a_page(pages: dict[str, str]) -> None:
    english = {name: len(text.split()) for name, text in pages.items() if not name.startswith("zh/")}
    assert len(english) == 37
    assert {name: words for name, words in english.items() if not 250 <= words <= 600} == {}


def test_three_pages_are_chinese(pages: dict[str, str]) -> None:
    def han(text: str) -> int:
        return len(re.findall(r"[\u4e00-\u9fff]", text))

    assert sorted(name for name, text in pages.items() if han(text) > 300) == sorted(name for name in pages if name.startswith("zh/"))
    assert sum(name.startswith("zh/") for name in pages) == 3


def test_one_page_quotes_a_prompt_injection(pages: dict[str, str]) -> None:
    assert [name for name, text in pages.items() if "ignore previous instructions" in text.lower()] == ["it/security-training.md"]


def test_links_between_pages_lead_somewhere(pages: dict[str, str]) -> None:
    named = {name for text in pages.values() for name in re.findall(r"`([\w-]+/[\w-]+\.(?:md|html|pdf))`", text)}
    linked = {
        (path.parent / target).resolve().relative_to(DOCS.resolve()).as_posix()
        for path in DOCS.rglob("*.html")
        for target in re.findall(r'href="([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert named
    assert linked
    assert (named | linked) - set(pages) == set()


# The questions


def test_a_hundred_questions_of_three_types_and_two_languages(questions: list[dict[str, Any]]) -> None:
    assert Counter(question["type"] for question in questions) == {"single-hop": 60, "multi-hop": 25, "unanswerable": 15}
    assert Counter(question["language"] for question in questions) == {"en": 90, "zh": 10}
    assert all(set(question) == FIELDS for question in questions)


def test_ids_count_up_and_no_question_comes_twice(questions: list[dict[str, Any]]) -> None:
    assert [question["id"] for question in questions] == [f"q{number:03d}" for number in range(1, 101)]
    folded = Counter(re.sub(r"\W+", " ", question["question"].casefold()).strip() for question in questions)
    assert [text for text, count in folded.items() if count > 1] == []


def test_every_quote_stands_on_its_page(questions: list[dict[str, Any]], pages: dict[str, str]) -> None:
    gold = [(question["id"], entry["document"], entry["quote"]) for question in questions for entry in question["gold"]]
    assert len(gold) > 100
    assert [entry for entry in gold if entry[1] not in pages] == []
    assert [entry for entry in gold if normalised(entry[2]) not in pages[entry[1]]] == []


def test_every_page_proves_an_answer(questions: list[dict[str, Any]], pages: dict[str, str]) -> None:
    assert {entry["document"] for question in questions for entry in question["gold"]} == set(pages)


def test_each_quote_of_a_single_hop_question_holds_an_answer(questions: list[dict[str, Any]]) -> None:
    single = of_type(questions, "single-hop")
    assert [question["id"] for question in single if not question["gold"]] == []
    assert [question["id"] for question in single if not all(proves(question, entry["quote"]) for entry in question["gold"])] == []


def test_multi_hop_questions_need_two_places(questions: list[dict[str, Any]]) -> None:
    multi = of_type(questions, "multi-hop")
    places = {question["id"]: {(entry["document"], entry["quote"]) for entry in question["gold"]} for question in multi}
    assert [name for name, gold in places.items() if len(gold) < 2] == []
    assert [question["id"] for question in multi if not any(proves(question, entry["quote"]) for entry in question["gold"])] == []


def test_unanswerable_questions_have_neither_answer_nor_proof(questions: list[dict[str, Any]]) -> None:
    assert [question["id"] for question in of_type(questions, "unanswerable") if question["answers"] or question["gold"]] == []


# The PDFs


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    pytest.importorskip("fpdf", reason="the PDF pages are built with fpdf2")
    spec = importlib.util.spec_from_file_location("build_pdfs", HANDBOOK / "build_pdfs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rebuilt(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pdf")
    builder.build(out)
    return out


def producer(path: Path) -> str | None:
    from pypdf import PdfReader

    metadata = PdfReader(path).metadata
    assert metadata is not None
    return metadata.producer


def test_pdfs_are_built_from_their_sources(rebuilt: Path) -> None:
    committed = {path.relative_to(DOCS): path for path in DOCS.rglob("*.pdf")}
    built = {path.relative_to(rebuilt): path for path in rebuilt.rglob("*.pdf")}
    assert set(built) == set(committed)
    for name, path in committed.items():
        assert path.stat().st_size < 30_000
        assert normalised(pdf_text(built[name])) == normalised(pdf_text(path))
        if producer(path) == producer(built[name]):  # another fpdf2 may lay a page out differently
            assert built[name].read_bytes() == path.read_bytes(), f"{name} is not what build_pdfs.py makes of its source"


def test_building_twice_gives_the_same_bytes(builder: ModuleType, rebuilt: Path, tmp_path: Path) -> None:
    again = builder.build(tmp_path)
    assert len(again) == 6
    assert all(path.read_bytes() == (rebuilt / path.relative_to(tmp_path)).read_bytes() for path in again)
