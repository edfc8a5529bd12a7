"""The benchmark on a few made-up abstracts and a model of a thousand weights; its parts on numbers."""

from __future__ import annotations

import argparse
import csv
import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks import decoupled as benchmark
from benchmarks.decoupled import NONE, OTHERS, OWN, Abstract, Score
from benchmarks.report import Row
from generators.decoupled.model import EncoderDecoder, Size
from generators.decoupled.tokenizer import train_tokenizer
from rag.core.errors import ConfigError

SHARED = Path("../shared/data")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def written(number: int) -> tuple[str, list[str]]:
    """Title and sentences; each abstract has a word of its own."""
    word = LETTERS[number % 26] * 3
    return f"about {number}", [" ".join([word, "is", LETTERS[(number + at) % 26], "here"] * 7) + "." for at in range(5)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "scifact"
    folder.mkdir(parents=True)
    corpus, claims = io.StringIO(), io.StringIO()
    table = csv.DictWriter(corpus, ["doc_id", "title", "abstract", "structured"])
    table.writeheader()
    for number in range(20):
        title, sentences = written(number)
        table.writerow({"doc_id": number, "title": title, "abstract": "[" + "\n ".join(map(repr, sentences)) + "]", "structured": "False"})
    csv.DictWriter(claims, ["id", "claim", "cited_doc_ids"]).writeheader()
    with zipfile.ZipFile(folder / "scifact.zip", "w") as archive:
        archive.writestr("corpus_train.csv", corpus.getvalue())
        archive.writestr("claims_validation.csv", claims.getvalue())
    return folder.parent


def given(data: Path, runs: Path, *more: object) -> argparse.Namespace:
    quick = ("--held-out", "6", "--steps", "4", "--batch", "4", "--vocabulary", "300", "--width", "32", "--layers", "1", "--rounds", "1")
    return benchmark.options(["--data", str(data), "--runs", str(runs), *quick, *map(str, more)])


def value(rows: Sequence[Row], case: str, metric: str) -> float:
    [found] = [row.value for row in rows if (row.case, row.metric) == (case, metric)]
    return found


def test_the_whole_of_it_and_what_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = given(data, tmp_path / "runs")
    rows = benchmark.measure(options)
    for way in (OWN, OTHERS, NONE):
        assert value(rows, way, "ppl_min") <= value(rows, way, "ppl") <= value(rows, way, "ppl_max")
    for way in (OTHERS, NONE):
        assert value(rows, OWN, f"reduction_{way}") == pytest.approx(100 * (1 - value(rows, OWN, "ppl") / value(rows, way, "ppl")))
    assert value(rows, OWN, "abstracts") == 6
    assert value(rows, "store", "difference") == 0
    assert value(rows, "store", "target_s") > value(rows, "store", "ready_s") > 0
    [size] = [row for row in rows if row.metric == "bytes_per_token"]
    assert size.peer_value == 2 * 1 * 1 * 32 * 4
    assert 1 < size.ratio < 1.5  # token ids, names and headers
    assert value(rows, "training", "tokens") > 0

    def must_not(*_: Any, **__: Any) -> None:
        raise AssertionError("this was done before")

    for done in ("train", "examples", "logprobs"):
        monkeypatch.setattr(benchmark, done, must_not)
    monkeypatch.setattr(benchmark.Measurement, "difference", lambda self: 0.0)
    assert benchmark.measure(options) == rows
    with pytest.raises(AssertionError, match="done before"):
        benchmark.measure(given(data, tmp_path / "runs", "--steps", 5))
    with pytest.raises(AssertionError, match="done before"):
        benchmark.measure(given(data, tmp_path / "runs", "--format", "float16"))


def test_a_stopped_training_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "Settings", lambda *numbers: _SETTINGS(*numbers, save_every=2))
    whole = benchmark.measure(given(data, tmp_path / "whole"))

    def stop(event: Any) -> None:
        if event.step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(benchmark, "_told", stop)
        with pytest.raises(KeyboardInterrupt):
            benchmark.measure(given(data, tmp_path / "parts"))
    told: list[int] = []
    monkeypatch.setattr(benchmark, "_told", lambda event: told.append(event.step))
    parts = benchmark.measure(given(data, tmp_path / "parts"))
    assert told == [3, 4]
    for way in (OWN, OTHERS, NONE):
        assert value(parts, way, "ppl") == value(whole, way, "ppl")


_SETTINGS = benchmark.Settings


def test_a_store_that_lacks_a_context_is_no_result(data: Path, tmp_path: Path) -> None:
    model = EncoderDecoder.created(train_tokenizer(["a b c"], 300), Size(32, 32, 32, 1, 1, 1))
    _, held_out = benchmark.apart(benchmark.abstracts(data), 4)
    work = benchmark.Measurement(model, benchmark.trials(held_out), "float32", tmp_path)
    with pytest.raises(ConfigError, match="lacks contexts"):
        work._stored([("none", "text")])


def test_abstracts_are_cut_into_pieces_that_lose_nothing(data: Path) -> None:
    found = benchmark.abstracts(data)
    assert len(found) == 20
    for number, abstract in enumerate(found):
        title, sentences = written(number)
        assert (abstract.id, abstract.title) == (str(number), title)
        assert " ".join(abstract.pieces) == " ".join(sentences)
        assert [len(piece.split()) for piece in abstract.pieces] == [40, 40, 40, 20]
        assert abstract.halves == (abstract.pieces[:2], abstract.pieces[2:])


def test_of_scifact() -> None:
    if not (SHARED / "scifact").is_dir():
        pytest.skip("the shared data are not here")
    found = benchmark.abstracts(SHARED)
    assert len(found) > 5000
    assert len({abstract.id for abstract in found}) == len(found)


def abstracts(number: int) -> list[Abstract]:
    return [Abstract(f"{at}", f"title {at}", tuple(f"{LETTERS[at]} {place}" for place in range(5))) for at in range(number)]


def test_held_out_abstracts_are_not_learnt() -> None:
    learnt, held_out = benchmark.apart(abstracts(20), 5)
    assert len(held_out) == 5
    assert {each.id for each in learnt} | {each.id for each in held_out} == {str(at) for at in range(20)}
    assert benchmark.apart(abstracts(20), 5) == (learnt, held_out)
    for wrong in (2, 18):
        with pytest.raises(ConfigError, match="3 or more"):
            benchmark.apart(abstracts(20), wrong)


def test_a_target_never_stands_in_the_contexts() -> None:
    learnt = abstracts(6)
    model = EncoderDecoder.created(train_tokenizer(["a b c"], 300), Size(32, 32, 32, 1, 1, 1))
    text = lambda tokens: model.tokenizer.decode(list(tokens), skip_special_tokens=True)  # noqa: E731
    made = benchmark.examples(model, learnt)
    assert len(made) == 12
    for at, example in enumerate(made):
        abstract, (one, other) = learnt[at // 2], learnt[at // 2].halves
        contexts, target = ((one, other), (other, one))[at % 2]
        assert text(example.target) == " ".join(target)
        assert example.target[-1] == model.end
        assert text(example.prefix) == abstract.title
        found = {text(context) for context in example.contexts}
        assert len(found) == len(contexts) + 1
        assert set(contexts) < found
        (stranger,) = found - set(contexts)
        assert stranger[0] != contexts[0][0]


def test_ways_differ_in_whose_contexts_they_have() -> None:
    for at, trial in enumerate(benchmark.trials(abstracts(4))):
        own, other, third = ([id.split(":")[0] for id, _ in trial.ways[way]] for way in (OWN, OTHERS, NONE))
        assert own == [str(at)] * 3 + [str((at + 2) % 4)]
        assert other == [str((at + 1) % 4)] * 3 + [str((at + 2) % 4)]
        assert third == []
        assert trial.target == " ".join(abstracts(4)[at].halves[1])


def test_perplexities_and_their_intervals() -> None:
    even = [Score(n, {OWN: -2.0 * n, OTHERS: -2.1 * n, NONE: -2.5 * n}) for n in (100, 50, 10)]
    assert benchmark.perplexity(even, OWN) == pytest.approx(math.e**2)
    ends = benchmark.intervals(even)
    assert ends[OWN] == pytest.approx((math.e**2, math.e**2))
    assert ends[f"{OWN}/{NONE}"] == pytest.approx((100 * (1 - math.exp(-0.5)),) * 2)
    rng = np.random.default_rng(0)
    mixed = [Score(100, {OWN: -200.0 + float(gain), OTHERS: -200.0, NONE: -210.0}) for gain in rng.normal(10, 5, 30)]
    low, high = benchmark.intervals(mixed)[f"{OWN}/{OTHERS}"]
    assert 2 < high - low < 5  # two standard errors of 5/√30 % to either side
    assert 5 < low < high < 14


def test_options_out_of_range(data: Path, tmp_path: Path) -> None:
    for wrong in (("--width", 40), ("--width", 0), ("--rounds", 0), ("--abstracts", 0), ("--layers", 0)):
        with pytest.raises(SystemExit):
            given(data, tmp_path, *wrong)
