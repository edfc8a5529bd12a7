"""The benchmark on a few made-up articles and a model of two random layers; its parts on numbers."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import knn_lm as benchmark
from benchmarks.knn_lm import Sums
from benchmarks.report import Row
from generators.knn_lm.datastore import Neighbours
from generators.knn_lm.reading import Reading
from rag.core.errors import ConfigError, InputError

SHARED = Path("../shared/data")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "the", "dog", "ran", "to", "it"]


def article(number: int) -> str:
    """A dozen words, always in one order, with a subheading and a line that looks like a heading."""
    words = " ".join(WORDS[(number + at) % len(WORDS)] for at in range(30))
    return (
        f" = title {'abcdefghijklmnopqrstuvwxyz'[number]} = \n \n {words} . \n \n = = part = = \n \n {words} . \n = a = \n {words} . \n \n"
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "wikitext2"
    folder.mkdir(parents=True)
    for part, numbers in (("valid", range(20)), ("test", range(20, 26))):
        (folder / f"{part}.txt").write_text(" \n" + "".join(map(article, numbers)))
    return folder.parent


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    pytest.importorskip("faiss")
    from tests.generators.knn_lm import tiny

    return tiny.saved(tmp_path_factory.mktemp("model"))


def given(data: Path, runs: Path, model: Path, *more: object) -> argparse.Namespace:
    quick = ("--window", "32", "--stride", "16", "--test-every", "2", "--device", "cpu")
    return benchmark.options(["--data", str(data), "--runs", str(runs), "--model", str(model), *quick, *map(str, more)])


def value(rows: Sequence[Row], metric: str, case: str = "wikitext2") -> float:
    [found] = [row.value for row in rows if (row.case, row.metric) == (case, metric)]
    return found


def test_the_whole_of_it_and_what_is_kept(data: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = given(data, tmp_path / "runs", model)
    rows = benchmark.measure(options)
    ppl, base = value(rows, "ppl"), value(rows, "ppl_base")
    assert 1 < ppl < base  # the words come in one order, which the random model does not know
    assert value(rows, "reduction") == pytest.approx(100 * (1 - ppl / base))
    assert value(rows, "reduction_min") <= value(rows, "reduction") <= value(rows, "reduction_max")
    assert value(rows, "articles") == 3
    assert value(rows, "tokens") == sum(len(article(number)) - 1 for number in (20, 22, 24))
    assert value(rows, "entries") == sum(len(article(number)) - 1 for number in range(20) if number not in (9, 19))
    assert value(rows, "lambda") in benchmark.WEIGHTS
    assert value(rows, "reduction", "wikitext2, held out") > 0
    assert 0 < value(rows, "reduction", "wikitext2, word counts") < value(rows, "reduction")  # the order of words is not in their counts

    def must_not(*_: Any, **__: Any) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr("generators.knn_lm.reading.Reader.read", must_not)
    monkeypatch.setattr("generators.knn_lm.build._Pass._fill", must_not)
    assert benchmark.measure(options) == rows
    with pytest.raises(AssertionError, match="done before"):
        benchmark.measure(given(data, tmp_path / "runs", model, "--test-every", "1"))
    with pytest.raises(AssertionError, match="done before"):
        benchmark.measure(given(data, tmp_path / "runs", model, "--stride", "8"))


def test_a_stopped_benchmark_goes_on(data: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from generators.knn_lm.reading import Reader

    whole = benchmark.measure(given(data, tmp_path / "whole", model))
    read = Reader.read
    done: list[int] = []

    def few(self: Reader, ids: Sequence[int]) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(1)
        return read(self, ids)

    with monkeypatch.context() as broken:
        broken.setattr(Reader, "read", few)
        with pytest.raises(KeyboardInterrupt):
            benchmark.measure(given(data, tmp_path / "parts", model))
    assert len(list((tmp_path / "parts").glob("choice-*.json"))) == 2
    assert len(list((tmp_path / "parts").glob("test-*.json"))) == 1
    assert benchmark.measure(given(data, tmp_path / "parts", model)) == whole


def test_the_test_part_chooses_nothing(data: Path, tmp_path: Path, model: Path) -> None:
    before = benchmark.measure(given(data, tmp_path / "one", model))
    (data / "wikitext2" / "test.txt").write_text(" = other = \n \n zzz yyy xxx www zzz \n")
    after = benchmark.measure(given(data, tmp_path / "two", model))
    assert value(before, "ppl") != value(after, "ppl")
    for metric in ("lambda", "temperature", "k", "entries"):
        assert value(before, metric) == value(after, metric)


def test_the_articles(data: Path) -> None:
    assert benchmark.articles(data, "valid") == [article(number) for number in range(20)]
    store, held_out = benchmark.apart(benchmark.articles(data, "valid"), 10)
    assert held_out == [article(9), article(19)]
    assert len(store) == 18


def test_of_wikitext() -> None:
    if not (SHARED / "wikitext2").is_dir():
        pytest.skip("the shared data are not here")
    for part in ("valid", "test"):
        found = benchmark.articles(SHARED, part)
        assert len(found) == 60
        assert min(map(len, found)) > 2000


def test_the_best_setting_counts_tokens_not_articles() -> None:
    settings = benchmark.grid(48.0, 512)[:2]
    found = [Sums(10, -10.0, (-9.0, -5.0), ()), Sums(100, -100.0, (-80.0, -90.0), ())]
    assert benchmark.best(settings, found) == settings[0]
    assert benchmark.best(settings, found[:1]) == settings[1]


def test_the_control_mixes_with_word_counts() -> None:
    shares = np.array([0.5, 0.25, 0.25, 0.0])
    reading = Reading(np.array([0, 3]), np.log([0.1, 0.2]), Neighbours(np.zeros((2, 1)), np.zeros((2, 1), dtype=np.int64)))
    [first, *_] = Sums.of(reading, [], shares).counted
    weight = benchmark.WEIGHTS[0]
    assert first == pytest.approx(math.log(weight * 0.5 + (1 - weight) * 0.1) + math.log((1 - weight) * 0.2))
    choice = [Sums(10, -10.0, (), (-9.0, -8.0)), Sums(10, -10.0, (), (-9.0, -9.5))]
    assert [sums.mixed for sums in benchmark.with_counts(choice, [Sums(5, -5.0, (-1.0,), (-4.0, -3.0))])] == [(-3.0,)]


def test_the_grid() -> None:
    settings = benchmark.grid(64.0, 512)
    assert len(set(settings)) == len(benchmark.WEIGHTS) * len(benchmark.TEMPERATURES) * len(benchmark.NEIGHBOURS)
    assert {each.temperature for each in settings} == {1, 2, 4, 8, 16, 32, 64}
    assert {each.k for each in benchmark.grid(1.0, 40)} == {32}
    assert {each.k for each in benchmark.grid(1.0, 5)} == {5}


def test_the_reduction_and_its_interval() -> None:
    even = [Sums(n, -2.0 * n, (-1.9 * n,), ()) for n in (100, 50, 10)]
    expected = 100 * (1 - math.exp(-0.1))
    assert benchmark.reduction(even) == pytest.approx(expected)
    assert benchmark.interval(even) == pytest.approx((expected, expected))
    rng = np.random.default_rng(0)
    mixed = [Sums(100, -200.0, (float(-200 + gain),), ()) for gain in rng.normal(10, 5, 30)]
    low, high = benchmark.interval(mixed)
    assert low < benchmark.reduction(mixed) < high
    assert 2 < high - low < 5  # two standard errors of 5/√30 % to either side


def test_options_out_of_range(data: Path, tmp_path: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match="--test-every 0"):
        given(data, tmp_path, model, "--test-every", 0)
    with pytest.raises(ConfigError, match="9 articles for the datastore and 0 to choose by"):
        benchmark.measure(given(data, tmp_path, model, "--store-articles", 9))
    with pytest.raises(ConfigError, match="0 articles for the datastore and 20 to choose by"):
        benchmark.measure(given(data, tmp_path, model, "--hold-out", 1))


def test_data_that_are_not_there(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder that holds wikitext2/"):
        benchmark.articles(tmp_path, "valid")
    (data / "wikitext2" / "test.txt").write_text("no article")
    with pytest.raises(InputError, match="it is not WikiText-2"):
        benchmark.articles(data, "test")
