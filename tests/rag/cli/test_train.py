"""``rag train`` on models of two layers, in folders as transformers writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from adapters import load
from adapters.folder import read_card
from adapters.training.data import read
from rag.cli import training
from rag.core.errors import AdapterError
from tests.adapters.tiny import batch_for, tiny
from tests.adapters.training.parts import answered, labelled, related, tokenizer, write_lines
from tests.rag.cli.conftest import Rag

QUICK = ("--steps", 4, "--batch", 3, "--lr", 0.01, "--set", "r=2")


def model_folder(path: Path, on: str) -> Path:
    tiny(on).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "llama", "llama")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "train.jsonl", [vars(record) for record in answered(9)])


def account(rag: Rag, *arguments: Any) -> dict[str, Any]:
    result = rag("train", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_an_adapter_is_trained_and_can_be_worn(rag: Rag, llama: Path, data: Path, tmp_path: Path) -> None:
    held_out = write_lines(tmp_path / "eval.jsonl", [vars(record) for record in answered(3)])
    out = tmp_path / "skill"
    options = ("--base", llama, "--data", data, "--eval", held_out, "--method", "lora", "--set", 'targets=["q_proj"]', "--out", out)
    found = account(rag, *options, *QUICK, "--eval-every", 2, "--max-tokens", 8)
    assert (found["method"], found["steps"], found["examples"]) == ("LoRA", 4, 9)
    assert [entry["step"] for entry in found["held_out"]] == [0, 2, 4]
    assert found["trained"] == 2 * 2 * (32 + 32)
    card = read_card(out)
    assert card["arguments"]["targets"] == ["q_proj"]
    assert card["data"] == {"file": "train.jsonl", "bytes": read(data).bytes, "sha256": read(data).sha256, "examples": 9}
    assert card["held_out"]["sha256"] == read(held_out).sha256
    assert (card["options"]["steps"], card["options"]["seed"], card["max_tokens"]) == (4, 0, 8)
    assert card["outcome"]["held_out"] == found["held_out"]
    assert card["versions"]["torch"] == torch.__version__
    lines = [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[-1]["loss"] == found["last_loss"]
    assert not (tmp_path / "skill.training").exists()
    base = AutoModelForCausalLM.from_pretrained(llama).eval()
    before = base(**batch_for("llama")).logits
    worn = load(base, out)
    assert not torch.equal(worn.model(**batch_for("llama")).logits, before)


def test_the_same_command_gives_the_same_weights(rag: Rag, llama: Path, data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        account(rag, "--base", llama, "--data", data, "--out", tmp_path / name, *QUICK)
    first, second = (read_card(tmp_path / name)["files"] for name in ("one", "two"))
    assert first == second


def test_a_stopped_run_goes_on(rag: Rag, llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ("--base", llama, "--data", data, *QUICK, "--save-every", 1)
    account(rag, *call, "--out", tmp_path / "whole")
    kept = training._account

    def fails(*_: Any) -> None:
        raise AdapterError("stopped here")

    out = tmp_path / "parts"
    monkeypatch.setattr("adapters.adapted.Adapted.save", fails)
    assert rag("train", *call, "--out", out).exit_code == 2
    monkeypatch.undo()
    assert training._account is kept
    again = rag("train", *call, "--out", out)
    assert again.exit_code == 2
    assert "add --resume to go on" in again.output
    account(rag, *call, "--out", out, "--resume")
    assert read_card(out)["files"] == read_card(tmp_path / "whole")["files"]
    assert not out.with_name("parts.training").exists()


def test_a_classifier_keeps_its_labels(rag: Rag, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "bert", "bert")
    data = write_lines(tmp_path / "train.jsonl", [vars(record) for record in labelled()])
    account(rag, "--base", base, "--data", data, "--out", tmp_path / "out", *QUICK)
    card = read_card(tmp_path / "out")
    assert (card["labels"], card["head"]) == (["a", "b", "c"], ["classifier"])
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3).eval()
    assert load(model, tmp_path / "out").model(**batch_for("bert")).logits.shape == (3, 3)


def test_an_encoder_learns_from_questions(rag: Rag, tmp_path: Path) -> None:
    base = tmp_path / "encoder"
    tiny("bert").bert.save_pretrained(base)
    tokenizer().save_pretrained(base)
    data = write_lines(tmp_path / "train.jsonl", [vars(record) for record in related()])
    found = account(rag, "--base", base, "--data", data, "--out", tmp_path / "out", *QUICK)
    assert found["steps"] == 4
    refused = rag("train", "--base", base, "--data", write_lines(data, [vars(r) for r in answered(3)]), "--out", tmp_path / "x", *QUICK)
    assert refused.exit_code == 2
    assert "(BertModel) writes no text" in refused.output


def test_for_people_it_is_a_table(rag: Rag, llama: Path, data: Path, tmp_path: Path) -> None:
    result = rag("train", "--base", llama, "--data", data, "--out", tmp_path / "out", *QUICK, "--max-tokens", 8)
    assert result.exit_code == 0, result.output
    for told in ("LoRA", "steps", "4 over 9 examples", "lora, merged", "tokens/s"):
        assert told in result.stdout
    assert "the prompt was cut, to 8 tokens in all" in result.stderr


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--method", "nothing"), "there is no method 'nothing'; known are: "),
        (("--set", "rank=4"), "LoRA has no option 'rank'; allowed are: r, alpha, dropout, targets"),
        (("--set", "r"), "write NAME=VALUE, such as --set r=16"),
        (("--set", "r=4"), "--set r was given twice"),
        (("--set", "dropout=1"), "dropout is a number from 0 to below 1"),
        (("--patience", 2), "--patience needs --eval"),
        (("--max-tokens", 100_000), "is more than"),
        (("--lr", 0), "lr is above 0"),
        (("--data", "none.jsonl"), "none.jsonl: there is no such file"),
        (("--base", "./nowhere"), "there is no model './nowhere'"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(rag: Rag, llama: Path, data: Path, tmp_path: Path, wrong: tuple[str, Any], told: str) -> None:
    result = rag("train", "--base", llama, "--data", data, "--out", tmp_path / "out", *QUICK, *wrong)
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(rag: Rag, llama: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    result = rag("train", "--base", llama, "--data", data, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "is there already" in result.output


def test_the_two_files_are_of_one_form(rag: Rag, llama: Path, data: Path, tmp_path: Path) -> None:
    other = write_lines(tmp_path / "eval.jsonl", [vars(record) for record in labelled()])
    result = rag("train", "--base", llama, "--data", data, "--eval", other, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "of another form" in result.output


def test_help_shows_an_example(rag: Rag) -> None:
    result = rag("train", "--help")
    assert result.exit_code == 0
    assert "rag train --base smollm2 --data train.jsonl" in " ".join(result.stdout.split())
