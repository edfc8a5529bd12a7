from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.lorahub.composition import WornStack, read_stack
from adapters.lorahub.examples import batches
from adapters.lorahub.merging import weighted_sum
from adapters.lorahub.objective import cross_entropy
from adapters.registry import Registry
from adapters.training.data import Answered
from adapters.training.tasks import PromptTokens
from benchmarks import lorahub
from benchmarks.lorahub import StateDicts, few_rows, majority_row, score_rows, worn_factors
from benchmarks.lorahub_tasks import Score, Scorer, Unseen, first_line, plain, read_bbh, shuffled
from rag.core.errors import InputError
from tests.adapters.lorahub.parts import logits, saved
from tests.adapters.tiny import tiny

DATA = Path("../shared/data")
WORDS = ["<end>", "Q", ":", "A", "yes", "no", "(", ")", "B", ".", *(str(number) for number in range(60))]


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<end>"))
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", pad_token="<end>")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three tasks as BBH has them, of 14 questions each."""
    folder = tmp_path / "data" / "bbh" / "bbh"
    folder.mkdir(parents=True)
    for name, answers in {"one": ["yes", "no"], "two": ["(A)", "(B)"], "new": ["yes", "no"]}.items():
        examples = [{"input": f"{number} {number + 1}", "target": answers[number % 2]} for number in range(14)]
        (folder / f"{name}.json").write_text(json.dumps({"canary": "x", "examples": examples}))
    return tmp_path / "data"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    tiny("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_a_task_is_read_as_plain_questions(data: Path) -> None:
    task = read_bbh(data, "two")
    assert task.records[1] == Answered("Q: 1 2\nA:", " (B)")
    assert (len(task.records), len(task.sha256), task.path.stem) == (14, 64, "two")


def test_an_unknown_task_lists_those_that_are_there(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are: new, one, two"):
        read_bbh(data, "three")
    with pytest.raises(InputError, match="--data takes the folder"):
        read_bbh(tmp_path, "one")


@pytest.mark.skipif(not (DATA / "bbh").is_dir(), reason="needs ../shared/data/bbh")
def test_the_real_tasks_are_there() -> None:
    sizes = {name: len(read_bbh(DATA, name).records) for name in (*lorahub.TASKS, *lorahub.UNSEEN)}
    assert (sizes.pop("snarks"), set(sizes.values())) == (178, {250})


def test_the_five_examples_are_those_of_the_released_code() -> None:
    import random

    pairs = [(str(number), str(-number)) for number in range(250)]
    random.seed(42)
    order = list(pairs)
    random.shuffle(order)
    assert shuffled(pairs, 42)[:5] == order[:5]


def test_the_examples_are_not_among_the_questions(data: Path, tmp_path: Path) -> None:
    asked = Unseen.of(read_bbh(data, "new"), None)
    assert (len(asked.few), len(asked.rest)) == (5, 9)
    assert not {one.prompt for one in asked.few} & {one.prompt for one in asked.rest}
    assert Unseen.of(asked.task, 2).rest == asked.rest[:2]
    asked.write(tmp_path / "few.jsonl")
    from adapters.lorahub import read_examples

    assert read_examples(tmp_path / "few.jsonl") == asked.few


@pytest.mark.parametrize(("text", "same"), [(" Yes.", "yes"), ("yes", "YES "), ("(A) .", "(a)"), ("1.5", "15")])
def test_answers_are_matched_as_in_the_released_code(text: str, same: str) -> None:
    assert plain(text) == plain(same)


def test_the_first_line_is_the_first_that_says_something() -> None:
    assert (first_line("\n yes\nQ: no"), first_line("")) == ("yes", "")


QUESTIONS = [Answered(f"Q: {'3 ' * extra}{extra}\nA:", answer) for extra, answer in enumerate([" yes", " (A)", " no", " 7", " (B) 9"])]


def test_answers_and_losses_are_those_of_each_question_alone() -> None:
    model, own = tiny("llama"), tokenizer()
    tokens = PromptTokens(own)
    rows = [tokens.encode(one) for one in QUESTIONS]
    written, losses = Scorer(own).answered(model, rows, 6)
    alone = [cross_entropy(model, batches(model, own, [one], 1, 64)) for one in QUESTIONS]
    assert losses == pytest.approx(alone, abs=1e-5)
    for (prompt, _), answer in zip(rows, written, strict=True):
        whole = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=6, eos_token_id=0, pad_token_id=0)
        assert answer == whole[0, len(prompt) :].tolist()


class Told(Scorer):
    """Answers what it is told, by the last number of the prompt."""

    def __init__(self, answers: dict[int, list[int]]) -> None:
        super().__init__(tokenizer(), batch=3)
        self.answers = answers
        self.room = 0

    def answered(self, model: Any, rows: Sequence[tuple[list[int], list[int]]], room: int) -> tuple[list[list[int]], list[float]]:
        self.room = room
        return [self.answers[prompt[-3]] for prompt, _ in rows], [float(prompt[-3]) for prompt, _ in rows]


def test_an_answer_has_to_end_and_scores_keep_their_order() -> None:
    word = {name: number for number, name in enumerate(WORDS)}
    end, yes, no = word["<end>"], word["yes"], word["no"]
    said = {word["7"]: [yes, end], word["8"]: [no, end], word["9"]: [yes] * 4, word["10"]: [yes, word["."], end], word["11"]: [end]}
    asked = [Answered(f"{'3 ' * (9 - place)}{number} A:", " yes") for place, number in enumerate((8, 7, 9, 10, 11))]
    scorer = Told(said)
    score = scorer.score(None, asked)
    assert score.em == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert score.loss == [float(word[number]) for number in ("8", "7", "9", "10", "11")]
    assert scorer.room == 4  # the answer, its end, and two more


def test_rows_of_a_score_hold_intervals_and_the_paired_gain() -> None:
    base, better = Score([0.0] * 8, [1.0, 0.0] * 4, [2.0] * 8), Score([1.0, 0.0] * 4, [1.0] * 8, [1.0] * 8)
    rows = {row.metric: row for row in score_rows("task/way", better, base)}
    assert (rows["em"].value, rows["em"].peer_value, rows["loss"].peer_value, rows["gain"].value) == (0.5, 0.0, 2.0, 0.5)
    assert rows["em_min"].value < 0.5 < rows["em_max"].value
    assert rows["gain_min"].value > 0
    assert rows["p_gain"].value == pytest.approx(0.125)
    assert rows["gain_line_min"].value < rows["gain_line"].value == 0.5 < rows["gain_line_max"].value
    assert majority_row("task/majority", ["yes", "no", "yes"]).value == pytest.approx(2 / 3)
    assert "gain" not in {row.metric for row in score_rows("task/base", base, None)}


def test_rows_of_a_search_tell_start_and_best() -> None:
    found = {"few_ce": 0.4, "start_ce": 2.0, "values": [2.0, 0.5, 0.7], "weights": [0.5, 0.0], "seconds": 3.0}
    rows = {row.metric: row for row in few_rows("task/composed", found)}
    assert (rows["start"].value, rows["best"].value, rows["best"].peer_value, rows["few_loss"].value) == (2.0, 0.5, 2.0, 0.4)
    assert (rows["evaluations"].value, rows["loras_used"].value) == (3, 1)


def test_factors_are_worn_as_they_are(tmp_path: Path) -> None:
    stack = read_stack([saved(tmp_path / f"lora{seed}", seed=seed) for seed in (1, 2)])
    model = tiny("llama", torch.float64)
    worn = WornStack(model, stack)
    worn.write([0.0, 1.0])
    expected = logits(worn.adapted.model)
    worn.adapted.remove()
    adapted = worn_factors(model, stack, weighted_sum(stack, [0.0, 1.0]))
    torch.testing.assert_close(logits(adapted.model), expected, rtol=0, atol=1e-10)


def test_the_released_codes_way_and_ours_are_one_model(tmp_path: Path) -> None:
    folders = [saved(tmp_path / f"lora{seed}", seed=seed) for seed in (1, 2, 3)]
    weights = [0.5, -0.7, 1.2]
    worn = WornStack(tiny("llama", torch.float64), read_stack(folders))
    worn.write(weights)
    (batch,) = batches(tiny("llama"), tokenizer(), [Answered("Q: 1 2", "yes"), Answered("Q: 3", "no")], 2, 64)
    peer = StateDicts(tiny("llama", torch.float64), folders)
    ours = cross_entropy(worn.adapted.model, [batch])
    for from_files in (False, True):
        assert peer.evaluation([0.0, 0.0, 0.0], batch, from_files) != pytest.approx(ours, abs=1e-3)
        assert peer.evaluation(weights, batch, from_files) == pytest.approx(ours, abs=1e-5)


def test_all_of_it_on_a_tiny_model_and_again_from_what_is_kept(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(file: Path) -> dict[tuple[str, str], float]:
        quick = {"steps": 3, "batch": 2, "held-out": 4, "limit": 3, "evaluations": 5, "candidates": 4, "rounds": 1}
        numbers = [text for name, value in quick.items() for text in (f"--{name}", str(value))]
        places = ["--data", str(data), "--base", str(base), "--runs", str(tmp_path / "runs"), "--json", str(file)]
        monkeypatch.setattr(sys, "argv", ["lorahub", "--tasks", "one", "two", "--unseen", "new", *numbers, *places])
        lorahub.main()
        return {(row["case"], row["metric"]): row["value"] for row in json.loads(file.read_text())["rows"]}

    first = run(tmp_path / "first.json")
    assert first["new/composed", "best"] <= first["new/composed", "start"]
    assert {case for case, _ in first} >= {"trained/one", "trained/two", "new/base", "new/ties", "new/dare", "speed/n4"}
    assert first["speed/n4", "loss_difference"] < 1e-4
    assert "one: step 3 of 3" in capsys.readouterr().out
    (runs,) = (tmp_path / "runs").iterdir()
    assert [entry.name for entry in Registry(runs / "registry").entries()] == ["one", "two"]
    assert (runs / "few" / "new.jsonl").is_file()
    again = run(tmp_path / "again.json")
    told = capsys.readouterr().out
    assert "step" not in told
    assert "evaluation 0" not in told
    assert {key: value for key, value in again.items() if "speed" not in key[0]} == {
        key: value for key, value in first.items() if "speed" not in key[0]
    }


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5"])
def test_bad_numbers_are_refused(number: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["lorahub", "--data", "x", f"--limit={number}"])
    with pytest.raises(SystemExit):
        lorahub.options()
    assert f"'{number}' is no whole number from 1" in capsys.readouterr().err


def test_a_score_survives_json() -> None:
    score = Score([1.0], [0.0], [0.5])
    assert Score(**json.loads(json.dumps(asdict(score)))) == score
