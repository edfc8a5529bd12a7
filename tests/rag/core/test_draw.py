"""Pictures of a graph."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Literal

import pytest

from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.core.ports import Branch
from rag.core.protocols import Retriever
from rag.core.types import Hit


def search(query: str) -> list[Hit]:
    return []


async def ask(question: str, retriever: Retriever) -> str:
    return question


def judge(text: str) -> Branch[Literal["done", "again"], str]:
    return Branch("done", text)


@pytest.fixture
def pipe() -> Pipeline:
    pipe = Pipeline().add("search", search).add("ask", ask).add("judge", judge)
    return pipe.connect("search", "ask.retriever").connect("ask", "judge").connect("judge.again", "ask.question", loop=2)


def test_mermaid_tells_the_kinds_of_edges_apart(pipe: Pipeline, tmp_path: Path) -> None:
    text = pipe.draw()
    assert "search -. retriever .-> ask" in text
    assert "ask -- text --> judge" in text
    assert "judge == again → question ≤2× ==> ask" in text
    pipe.draw(tmp_path / "graph.md")
    assert (tmp_path / "graph.md").read_text() == f"```mermaid\n{text}```\n"


def test_svg_is_well_formed_and_holds_every_node_and_edge(pipe: Pipeline, tmp_path: Path) -> None:
    pipe.draw(tmp_path / "graph.svg")
    root = ET.fromstring((tmp_path / "graph.svg").read_text())
    names = {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"search", "ask", "judge"} <= names
    arrows = [p for p in root.iter("{http://www.w3.org/2000/svg}path") if p.get("marker-end")]
    assert len(arrows) == 3
    assert sum(p.get("stroke-dasharray") is not None for p in arrows) == 1


def test_another_ending_is_refused(pipe: Pipeline) -> None:
    with pytest.raises(InputError, match=r"\.svg, \.mmd or \.md, not '\.png'"):
        pipe.draw("graph.png")


def test_names_that_mermaid_keeps_for_itself_are_changed_and_shown_as_they_are() -> None:
    def step(text: str) -> str:
        return text

    text = Pipeline().add("graph", step).add("end", step).connect("graph", "end").draw()
    assert 'end_["end<br/>' in text
    assert "graph_ -- text --> end_" in text
