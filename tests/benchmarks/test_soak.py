from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.soak import WATCHED, Load, Seen
from generators.cited import Cited
from rag.core.errors import ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.core.types import Document
from rag.serve.app import create_app
from rag.serve.settings import Uploads
from retrievers.corpus import Corpus
from retrievers.dense import Dense
from tests.rag.serve.parts import Letters, Scripted, listening

KINDS = {"ask", "stream", "leave", "search", "embed", "rerank", "bring", "refused", "look"}


@contextmanager
def loaded(folder: Path, model: Scripted) -> Iterator[str]:
    corpus = Corpus.create(folder / "corpus", encoder=Letters())
    corpus.add([Document("suits", "A suit may be worn outside for 90 minutes.")])
    pipe = Pipeline().add("search", Dense(corpus)).add("answer", Cited(model)).connect("search", "answer.retriever")
    with listening(create_app(pipe, uploads=Uploads(corpus, folder / "spool"))) as address:
        yield f"{address}/v1"


def test_every_kind_of_caller_is_answered(tmp_path: Path) -> None:
    with loaded(tmp_path, Scripted()) as address:
        seen = asyncio.run(Load(address, encoder="Letters").run(1.0, writers=1, every=0.1, pause=0.01))
    assert seen.failures == []
    assert set(seen.answered) == KINDS
    rows = {(row.case, row.metric): row for row in seen.rows(1 / 60)}
    assert rows["mixed", "requests"].value == sum(rows[kind, "requests"].value for kind in KINDS)
    assert rows["mixed", "failures"].value == 0
    assert 10 < rows["mixed", "rss_mb"].value < 100_000


def test_what_goes_wrong_is_counted_and_does_not_end_it(tmp_path: Path) -> None:
    with loaded(tmp_path, Scripted(error=ModelUnavailable("it is away"), fails_at=3)) as address:
        seen = asyncio.run(Load(address, encoder="nobody").run(0.5, writers=1, every=0.1, pause=0.01))
    assert {failure.partition(":")[0] for failure in seen.failures} >= {"ask", "stream", "embed"}
    assert {"search", "refused"} <= set(seen.answered)
    assert not {"ask", "stream", "embed"} & set(seen.answered)


@pytest.mark.parametrize(
    ("memory", "growth"), [([1, 9, 100, 100, 102, 104, 110, 110], 10.0), ([1, 100, 100, 100], 0.0), ([50], 0.0), ([9, 100, 100, 80], -20.0)]
)
def test_growth_is_of_the_last_quarter_over_the_second(memory: list[float], growth: float) -> None:
    seen = Seen(samples=[{WATCHED[0]: value * 1e6, WATCHED[1]: 7.0} for value in memory])
    rows = {row.metric: row for row in seen.rows(1.0)}
    assert rows["growth"].value == pytest.approx(growth)
    assert (rows["open_files"].value, rows["open_files"].peer_value) == (7.0, 7.0)
