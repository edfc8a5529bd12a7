"""`benchmarks.context_store`: every way reads the same tokens, times are taken in turns, and nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks import context_store, domain_gain  # noqa: E402
from benchmarks.context_store import Measurement, lengthy, quality, speed  # noqa: E402
from benchmarks.context_ways import DISK, FULL, RECOMPUTED, STITCHED, WAYS, Asked, Ways, cut  # noqa: E402
from benchmarks.domain_data import split  # noqa: E402
from benchmarks.kept import Kept  # noqa: E402
from benchmarks.results import read_record  # noqa: E402
from generators.models.decoding import Writing  # noqa: E402
from generators.models.stitched.encoder import LocalEncoder  # noqa: E402
from generators.models.stitched.reader import Reader  # noqa: E402
from generators.models.stitched.reference import joint  # noqa: E402
from rag.core.errors import ConfigError, InputError, PromptTooLong  # noqa: E402
from rag.core.types import Sampling  # noqa: E402
from rag.evaluate.datasets import load  # noqa: E402
from rag.evaluate.types import DataSet  # noqa: E402
from tests.generators.models.conftest import tiny_folder  # noqa: E402, F401

SHARED = Path(__file__).parents[2] / "../shared/data"
WINDOW = 1024
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "to", "lamp", "of", "paris", "in", "france", "with", "capital"]
SMALL = ("--limit", "2", "--contexts", "32", "64", "--piece", "16", "--rounds", "2", "--server")


def words(seed: int, number: int) -> str:
    return " ".join(WORDS[(seed * 7 + at * (seed % 5 + 1)) % len(WORDS)] for at in range(number))


def saved(folder: Path, source: Path, seed: int) -> Path:
    """The tiny model with a window for a whole prompt, and weights so large that what a passage sees makes a difference."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(source, max_position_embeddings=WINDOW)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    return saved(tmp_path_factory.mktemp("model"), tiny_folder, 3)


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    from adapters import LoRA, adapt

    worn = adapt(AutoModelForCausalLM.from_pretrained(model), LoRA())
    for parameter in worn.trained().values():
        torch.nn.init.normal_(parameter, std=0.5)
    worn.save(folder := tmp_path_factory.mktemp("adapter") / "lora")
    return folder


@pytest.fixture(scope="module")
def encoder(model: Path) -> LocalEncoder:
    return LocalEncoder(str(model), device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    articles = []
    for a in range(14):
        paragraphs = []
        for p in range(2):
            qas = [{"id": f"q{a}.{p}", "question": f"which {words(a + p, 3)} ?", "answers": [{"answer_start": 0, "text": "the lamp"}]}]
            paragraphs.append({"context": f"paragraph {a} {p} {words(a + p, 12)}", "qas": qas})
        articles.append({"title": f"article {a}", "paragraphs": paragraphs})
    records = [
        {
            "question": f"who {words(q, 3)} ?",
            "answers": ["paris"],
            "ctxs": [{"title": "", "text": f"piece {q} {c} {words(q + c, 40)}"} for c in range(3)],
        }
        for q in range(4)
    ]
    for name, content in {"xquad/xquad.en.json": {"data": articles}, "musique_contexts/musique_s.json": records}.items():
        (folder / name).parent.mkdir()
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder


ASKED = Asked("who ran to the lamp ?", ("p/1", "p/2", "p/3"), tuple(words(seed, 12) for seed in (1, 2, 3)))


@pytest.fixture
def ways(encoder: LocalEncoder, tmp_path: Path) -> Ways:
    return Ways(encoder, tmp_path / "store", list(zip(ASKED.ids, ASKED.texts, strict=True)), "float16")


def run(data: Path, model: Path, runs: Path, *more: str) -> dict[tuple[str, str], float]:
    given = ["--data", str(data), "--model", str(model), "--runs", str(runs), "--json", str(runs / "result.json")]
    context_store.main([*given, *SMALL, *more])
    return {(row.case, row.metric): row.value for row in read_record(runs / "result.json").rows}


def test_the_whole_of_it_and_again(data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(data, model, tmp_path)
    for case in ("local/0.03125k", "local/0.0625k"):
        for metric in ("ttft_s", "ttft_disk_s", "ttft_recomputed_s", "ttft_ratio"):
            assert 0 < first[case, f"{metric}_min"] <= first[case, metric] <= first[case, f"{metric}_max"]
    assert first["local/0.0625k", "context_tokens"] > first["local/0.03125k", "context_tokens"] > 24
    for name in ("xquad", "musique"):
        for way in WAYS:
            assert first[f"{name}/{way}", "questions"] == 2
            assert {(f"{name}/{way}", metric) for metric in ("em", "em_min", "em_max", "f1", "f1_min", "f1_max")} <= set(first)
            assert ((f"{name}/{way}", "f1_change") in first) == (way != FULL)
    # 2 layers, 2 heads of 8, keys and values, 2 bytes a number; the rest is the tokens and what names the passages
    assert 2 * 2 * 2 * 8 * 2 < first["store/float16", "bytes_per_token"] < 2 * 2 * 2 * 8 * 2 + 60

    def must_not(*_: Any, **__: Any) -> None:
        raise AssertionError("this was done before")

    for name in ("write", "first_tokens"):
        monkeypatch.setattr(Ways, name, must_not)
    monkeypatch.setattr(LocalEncoder, "encode", must_not)
    assert run(data, model, tmp_path) == first
    with pytest.raises(AssertionError, match="done before"):
        run(data, model, tmp_path, "--speed")
    with pytest.raises(AssertionError, match="done before"):
        run(data, model, tmp_path, "--limit", "3")


def test_a_model_that_wears_an_adapter_has_its_own_store_and_answers(data: Path, model: Path, adapter: Path, tmp_path: Path) -> None:
    rows = run(data, model, tmp_path, "--adapter", str(adapter), "--contexts")
    assert {case for case, _ in rows if case.startswith("musique/")} == {f"musique/{way}" for way in (*WAYS, "full+lora", "stitched+lora")}
    assert len(list(tmp_path.glob("store-*"))) == 2
    answers = [json.loads(file.read_text("utf-8")) for file in (tmp_path / "kept").glob("answer-*.json")]
    worn = {(one["key"]["question"], one["key"]["way"]): one["value"] for one in answers if one["key"]["model"]["adapter"]}
    bare = {(one["key"]["question"], one["key"]["way"]): one["value"] for one in answers if not one["key"]["model"]["adapter"]}
    assert len(worn) == 8
    assert len(bare) == 12
    assert all(worn[place] != bare[place] for place in worn)


def test_every_way_answers_as_its_reference_does(ways: Ways, encoder: LocalEncoder) -> None:
    prepared = ways.prepared(ASKED, 8)
    decoder = encoder.decoder
    said = {way: ways.write(way, ASKED, 8).text for way in (*WAYS, DISK)}
    whole = Reader(encoder, ways.store, 1.0).answer(prepared, Writing(prepared.tokens, Sampling(8))).text
    assert said[FULL] == whole  # all tokens computed again is ordinary reading
    assert said[DISK] == said[STITCHED] != said[FULL]
    ids = list(prepared.tokens)
    blocks = [list(block.encoded.tokens) for block in prepared.blocks]
    for _ in range(3):
        logits = joint(decoder, [*blocks, ids[prepared.start :]])[-1]
        ids.append(int(logits.argmax()))
    begun = decoder.tokenizer.decode(ids[len(prepared.tokens) :], skip_special_tokens=True)
    assert said[STITCHED].startswith(begun.rstrip("�"))
    assert begun.strip("�")


def test_the_sides_take_turns_and_disk_means_disk(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    ways.prepared(ASKED, 1)
    turns: list[str] = []
    write, whole = Ways.write, Ways._all_at_once
    monkeypatch.setattr(Ways, "write", lambda self, way, *rest: turns.append(way) or write(self, way, *rest))
    monkeypatch.setattr(Ways, "_all_at_once", lambda self, *rest: turns.append(FULL) or whole(self, *rest))
    seconds = ways.first_tokens(ASKED, 2)
    assert {way: len(values) for way, values in seconds.items()} == dict.fromkeys((FULL, STITCHED, DISK, RECOMPUTED), 2)
    assert all(value > 0 for values in seconds.values() for value in values)
    rounds = [turns[at : at + 4] for at in (0, 4, 8)]
    assert all(sorted(one) == sorted(seconds) for one in rounds)
    assert len({one[0] for one in rounds}) == 3
    cold = ways._readers[DISK]._store
    assert (cold.loads, cold.ram.bytes) == (9, 0)  # type: ignore[union-attr]
    assert ways.store.loads == 3


def test_the_ratio_is_that_of_each_round() -> None:
    seconds = {FULL: [8.0, 12.0, 10.0], STITCHED: [1.0, 2.0, 4.0], DISK: [2.0, 2.0, 5.0], RECOMPUTED: [4.0, 4.0, 4.0]}
    rows = {row.metric: row for row in speed("local/1k", seconds)}
    assert (rows["ttft_s"].value, rows["ttft_s"].peer_value, rows["ttft_s"].ratio) == (2, 10, 0.2)
    assert (rows["ttft_s_min"].value, rows["ttft_s_max"].value) == (1, 4)
    assert (rows["ttft_disk_s"].value, rows["ttft_recomputed_s"].value) == (2, 4)
    assert [rows[name].value for name in ("ttft_ratio", "ttft_ratio_min", "ttft_ratio_max")] == [6, 2.5, 8]


class Scripted:
    """In place of a `Measurement`."""

    def __init__(self, answers: dict[str, Sequence[str]]) -> None:
        self._answers = answers

    def answers(self, case: str, way: str, asked: Sequence[Asked]) -> list[str]:
        return list(self._answers[way])


def test_scores_are_percent_and_changes_are_paired_with_the_bare_model_in_full(data: Path) -> None:
    given = load(data / "musique_contexts" / "musique_s.json")
    asked = [ASKED] * 4
    bare = Scripted({FULL: ["paris", "paris", "no", "no"], STITCHED: ["paris", "no", "no", "or"], RECOMPUTED: ["paris"] * 4})
    worn = Scripted({FULL: ["paris"] * 4, STITCHED: ["paris", "paris", "paris", "no"]})
    rows = {(row.case, row.metric): row for row in quality("musique", given, asked, {"": bare, "+lora": worn})}  # type: ignore[dict-item]
    value = {place: row.value for place, row in rows.items()}
    assert (value["musique/full", "em"], value["musique/stitched", "em"], value["musique/stitched+15%", "f1"]) == (50, 25, 100)
    assert (value["musique/stitched", "f1_change"], value["musique/stitched+lora", "f1_change"]) == (-25, 25)
    assert (value["musique/stitched", "same_text"], value["musique/full+lora", "same_text"]) == (50, 50)
    assert value["musique/stitched", "f1_change_min"] <= -25 <= value["musique/stitched", "f1_change_max"] <= 0
    assert ("musique/full", "f1_change") not in value
    assert rows["musique/full", "em"].unit == "%"


def test_a_context_beyond_the_window_is_cut_and_named_so(data: Path, tmp_path: Path, encoder: LocalEncoder) -> None:
    given = load(data / "musique_contexts" / "musique_s.json")
    texts = [words(seed, 60) for seed in range(12)]
    long = Asked(given.questions[0].question, tuple(f"p/{at}" for at in range(12)), tuple(texts))
    ways = Ways(encoder, tmp_path / "store", list(zip(long.ids, long.texts, strict=True)), "float16")
    prepared = ways.prepared(long, 1)
    assert 0 < prepared.passages < 12
    (case,) = {row.case for row in Measurement(ways, Kept(tmp_path / "kept")).times(4096, long, 1)}
    assert case == f"local/{prepared.start / 1024:.1f}k (the window)"
    huge = replace(long, ids=("huge",), texts=(" ".join(texts) * 2,))
    with pytest.raises(PromptTooLong):
        Ways(encoder, tmp_path / "other", [("huge", huge.texts[0])], "float16").prepared(huge, 1)


def test_passages_of_a_length(data: Path, encoder: LocalEncoder) -> None:
    given = load(data / "musique_contexts" / "musique_s.json")
    made = lengthy(encoder, given, [32, 64], 16)
    assert {length: len(one.ids) for length, one in made.items()} == {32: 2, 64: 4}
    assert made[64].texts[:2] == made[32].texts
    for text, passage in zip(made[64].texts, given.passages, strict=False):
        assert 8 < len(encoder.tokenised([text])[0]) <= 16
        assert passage.text.startswith(text)
    assert cut(encoder, "the cat", 16) == "the cat"
    with pytest.raises(ConfigError, match="they are 16 to 192 tokens"):
        lengthy(encoder, given, [208], 16)
    with pytest.raises(ConfigError, match="--piece"):
        lengthy(encoder, given, [8], 16)


def test_data_that_are_not_there_and_options_out_of_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="--data takes the folder that holds xquad/ and musique_contexts/"):
        context_store.main(["--data", str(tmp_path)])
    for wrong in (["--limit", "0"], ["--rounds", "0"], ["--contexts", "-1"], ["--contexts", "--sets", "--server"]):
        with pytest.raises(SystemExit):
            context_store.options(["--data", ".", *wrong])
    assert "at least 1" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")
def test_the_questions_are_of_articles_that_the_reader_of_domain_gain_has_not_seen() -> None:
    given = domain_gain.options(["--data", "."])
    learnt = split(load(SHARED / "xquad" / "xquad.en.json"), given.articles, given.questions, given.seed).learnt
    asked: DataSet = context_store.questions("xquad", SHARED, None)
    assert len(asked.questions) == 80
    assert not {question.metadata["article"] for question in asked.questions} & {question.metadata["article"] for question in learnt}
