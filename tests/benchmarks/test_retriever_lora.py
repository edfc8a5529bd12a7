"""The benchmark on a set of a few abstracts and an encoder of two random layers; its parts on numbers."""

from __future__ import annotations

import argparse
import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import retriever_lora as benchmark
from benchmarks.data import RetrievalSet
from benchmarks.report import Row
from benchmarks.scifact_claims import Claim, apart, training_claims
from rag.core.errors import ConfigError, InputError
from rag.core.types import Passage
from tests.adapters.training.parts import WORDS

SHARED = Path("../shared/data")


def words(number: int, count: int = 8) -> str:
    return " ".join(WORDS[(number * 5 + at) % 90] for at in range(count))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty abstracts; claim n is about abstract n. The last training claim is one of the test's."""
    folder = tmp_path / "data" / "scifact"
    folder.mkdir(parents=True)
    tables: dict[str, list[list[str]]] = {
        "corpus_train.csv": [
            ["doc_id", "title", "abstract"],
            *([str(n), WORDS[n], f"['{words(n)}'\n '{words(n + 1)}']"] for n in range(40)),
        ],
        "claims_train.csv": [["id", "claim", "cited_doc_ids"], *([str(n), words(n, 3), f"[{n} {n + 1}]"] for n in range(30))],
        "claims_validation.csv": [["id", "claim", "cited_doc_ids"], *([str(n), words(n, 3), f"[{n}]"] for n in range(29, 38))],
    }
    with zipfile.ZipFile(folder / "scifact.zip", "w") as archive:
        for name, rows in tables.items():
            text = io.StringIO()
            csv.writer(text).writerows(rows)
            archive.writestr(name, text.getvalue())
    return folder.parent


def given(data: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, *more: object) -> argparse.Namespace:
    from tests.retrievers.tiny_encoder import encoder_folder

    encoder = runs / "encoder"
    if not encoder.exists():
        encoder_folder(encoder)
    quick = ("--rates", "0.01", "0.02", "--steps", "2", "--batch", "4", "--max-tokens", "16", "--held-out", "0.4", "--negatives", "0", "1")
    call = ["retriever_lora", "--data", str(data), "--runs", str(runs), "--encoder", str(encoder), *quick, *map(str, more)]
    monkeypatch.setattr("sys.argv", call)
    return benchmark.options()


def value(rows: Sequence[Row], case: str, metric: str) -> float:
    [found] = [row.value for row in rows if (row.case, row.metric) == (case, metric)]
    return found


def test_the_whole_of_it_and_what_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    rows = benchmark.measure(given(data, tmp_path / "runs", monkeypatch))
    for case in ("frozen", "lora"):
        for metric in ("ndcg@10", "recall@10"):
            assert 0 <= value(rows, case, f"{metric}_min") <= value(rows, case, metric) <= value(rows, case, f"{metric}_max") <= 1
    gain = value(rows, "lora", "ndcg@10") - value(rows, "frozen", "ndcg@10")
    assert value(rows, "lora", "gain") == pytest.approx(gain)
    assert value(rows, "lora", "gain_min") <= gain <= value(rows, "lora", "gain_max")
    assert 0 < value(rows, "lora", "p_gain") <= 1
    tried = {row.case: row.value for row in rows if row.case.startswith("development, rate") and row.metric == "ndcg@10"}
    assert len(tried) == 4
    best = f"development, rate {value(rows, 'lora', 'rate'):g}, {value(rows, 'lora', 'negatives'):g} mined"
    assert tried[best] == max(tried.values())
    claims = [value(rows, case, "claims") for case in ("lora", "lora, new abstracts", "lora, known abstracts") if _has(rows, case)]
    assert claims[0] == 9 == sum(claims[1:])

    def must_not(*_: Any, **__: Any) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr("rag.cli.training.Training.run", must_not)
    monkeypatch.setattr("retrievers.corpus.corpus.Corpus.add_passages", must_not)
    monkeypatch.setattr("benchmarks.workshop.mine", must_not)
    assert benchmark.measure(given(data, tmp_path / "runs", monkeypatch)) == rows
    with pytest.raises(AssertionError, match="done before"):
        benchmark.measure(given(data, tmp_path / "runs", monkeypatch, "--seed", 1))


def _has(rows: Sequence[Row], case: str) -> bool:
    return any(row.case == case for row in rows)


def test_a_stopped_benchmark_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    whole = benchmark.measure(given(data, tmp_path / "whole", monkeypatch))

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("adapters.adapted.Adapted.save", stopped)
        with pytest.raises(KeyboardInterrupt):
            benchmark.measure(given(data, tmp_path / "parts", broken))
    assert list((tmp_path / "parts").glob("lora-*.training"))
    assert benchmark.measure(given(data, tmp_path / "parts", monkeypatch)) == whole
    assert not list((tmp_path / "parts").glob("*.training"))


def test_ndcg_and_recall_of_each_claim() -> None:
    data = RetrievalSet("s", [], {"one": "q", "two": "r", "three": "s"}, {"one": {"a": 1}, "two": {"a": 1, "b": 1}, "three": {"z": 1}})
    scores = benchmark.Scores.of(data, {"one": ["b", "a"], "two": ["a", "b", "c"], "three": ["a"]})
    assert scores.ndcg == pytest.approx([0.63093, 1, 0], abs=1e-5)
    assert scores.recall == [1, 1, 0]


def test_a_gain_is_of_pairs() -> None:
    rows = benchmark.gains("lora", [0.1, 0.5, 0.9] * 20, [0.2, 0.6, 1.0] * 20)
    assert value(rows, "lora", "gain") == pytest.approx(0.1)
    assert value(rows, "lora", "gain_min") == pytest.approx(0.1)
    assert value(rows, "lora", "p_gain") < 0.001
    assert value(benchmark.gains("x", [0.1, 0.2], [0.2, 0.1]), "x", "p_gain") == 1


def test_claims_whose_abstracts_were_not_learnt() -> None:
    data = RetrievalSet("s", [], {"one": "", "two": "", "three": ""}, {"one": {"a": 1}, "two": {"a": 1, "b": 1}, "three": {"c": 1}})
    assert benchmark.unseen(data, {"b"}) == [0, 2]


def test_claims_are_set_apart_with_their_abstracts() -> None:
    claims = [Claim(str(n), str(n), frozenset({str(n), str(n + 1)} if n % 3 == 0 else {str(n)})) for n in range(200)]
    learnt, held_out = apart(claims, 0.3)
    cited = [{id for claim in part for id in claim.cited} for part in (learnt, held_out)]
    assert cited[0].isdisjoint(cited[1])
    assert 30 <= len(held_out) <= 80
    assert 90 <= len(learnt) < 200 - len(held_out)
    assert apart(claims[:50], 0.3)[1] == [claim for claim in held_out if int(claim.id) < 50]


def test_no_claims_to_choose_by(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="0 to choose by: change --held-out"):
        benchmark.measure(given(data, tmp_path / "runs", monkeypatch, "--held-out", "0"))


def test_a_limit_keeps_what_its_claims_cite() -> None:
    passages = [Passage(str(n), "") for n in range(100)]
    test = RetrievalSet("s", passages, {"1": "", "2": ""}, {"1": {"99": 1}, "2": {"98": 1}})
    claims = [Claim(str(n), "", frozenset({str(97 - n)})) for n in range(20)]
    few, learnt = benchmark._limited(test, claims, 1)
    assert list(few.queries) == ["1"]
    assert [passage.id for passage in few.passages] == [*map(str, range(20)), "94", "95", "96", "97", "99"]
    assert learnt == claims[:4]
    assert benchmark._limited(test, claims, None) == (test, claims)


def test_the_training_claims() -> None:
    if not (SHARED / "scifact").is_dir():
        pytest.skip("the shared data are not here")
    claims = training_claims(SHARED)
    assert (len(claims), sum(len(claim.cited) for claim in claims)) == (809, 919)


def test_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder that holds xquad/ and scifact/"):
        training_claims(tmp_path)
