from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters import load
from adapters.folder import read_card
from tests.adapters.lorahub.parts import Numbers, saved, trained
from tests.adapters.tiny import tiny
from tests.rag.cli.conftest import Rag

TASK = [(f"{word} {word + 1}", "60 61") for word in (5, 15, 25)]


def save_base(folder: Path) -> Path:
    """A tiny model and a tokenizer of numbers beside it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tiny("llama").save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({str(number): number for number in range(100)}, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="2", unk_token="0").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three LoRAs: one learnt the task, two are noise."""
    from adapters.lorahub.examples import batches
    from adapters.training.data import Answered

    root = tmp_path_factory.mktemp("registry")
    examples = [Answered(f"{word} {word + 1}", "60 61") for word in range(7, 37, 4)]
    trained(root / "task", batches(tiny("llama"), Numbers(), examples, 9, 64)[0], 3)
    for seed in (1, 2):
        saved(root / f"noise{seed}", seed=seed, targets="all", card={"description": f"noise {seed}"})
    return root


@pytest.fixture
def few(tmp_path: Path) -> Path:
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt, "answer": answer}) + "\n" for prompt, answer in TASK))
    return file


def composed(rag: Rag, few: Path, base: Path, registry: Path, out: Path, *more: str) -> dict[str, Any]:
    result = rag("compose", few, "--base", base, "--registry", registry, "--out", out, "--json", *more)
    assert result.exit_code == 0, result.stderr
    account: dict[str, Any] = json.loads(result.stdout)
    return account


def test_help_has_an_example(rag: Rag) -> None:
    result = rag("compose", "--help")
    assert (result.exit_code, "Example:  rag compose" in result.stdout) == (0, True)


def test_it_writes_a_lora_that_does_better(rag: Rag, few: Path, base: Path, registry: Path, tmp_path: Path) -> None:
    account = composed(rag, few, base, registry, tmp_path / "out")
    assert account["best"] < account["start"]
    assert account["evaluations"] <= 40
    assert {row["name"] for row in account["weights"]} == {"task", "noise1", "noise2"}
    assert max(account["weights"], key=lambda row: abs(row["weight"]))["name"] == "task"
    load(tiny("llama"), tmp_path / "out")
    assert len(read_card(tmp_path / "out")["composed"]["values"]) == account["evaluations"]
    assert rag("adapters", "add", tmp_path / "out", "--registry", tmp_path / "other").exit_code == 0


def test_people_get_a_table(rag: Rag, few: Path, base: Path, registry: Path, tmp_path: Path) -> None:
    result = rag("compose", few, "--base", base, "--registry", registry, "-o", tmp_path / "out", "--evaluations", "5")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0].split() == ["adapter", "weight"]
    assert len(result.stdout.splitlines()) == 4
    assert f"wrote {tmp_path / 'out'}" in result.stderr


def test_adapters_are_named_or_chosen(
    rag: Rag, few: Path, base: Path, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(*more: str) -> set[str]:
        account = composed(rag, few, base, registry, tmp_path / "out", "--evaluations", "4", *more)
        return {row["name"] for row in account["weights"]}

    class Encoder:
        """One number: is it the card of the second noise, or an example?"""

        def __init__(self, model: str) -> None:
            assert model == "minilm"

        def encode(self, texts: list[str]) -> Any:
            return np.array([[1.0, 0.0] if "noise 2" in text or "60" in text else [0.0, 1.0] for text in texts])

    monkeypatch.setattr("retrievers.encoders.SentenceEncoder", Encoder)
    assert names("--adapter", "noise1", "-a", "task") == {"noise1", "task"}
    assert names("--choose", "loss", "--count", "1") == {"task"}
    assert names("--choose", "similar", "--count", "1") == {"noise2"}
    assert len(names("--choose", "random", "--count", "2", "--seed", "1")) == 2


def test_what_goes_wrong_is_one_line_and_2(rag: Rag, few: Path, base: Path, registry: Path, tmp_path: Path) -> None:
    tiny("llama", torch.float32, seed=5).save_pretrained(tmp_path / "bare")
    (tmp_path / "bad.jsonl").write_text("{")
    for changes, says in (
        (("--registry", tmp_path / "none"), "there are no LoRAs"),
        (("--adapter", "other"), "there is no adapter 'other'"),
        (("--adapter", "task", "--adapter", "task"), "more than once"),
        (("--evaluations", "3"), "choose at most 2"),
        (("--base", tmp_path / "bare"), "has no tokenizer"),
        (("--base", tmp_path / "nowhere"), "there is no model"),
    ):
        result = rag("compose", few, "--base", base, "--registry", registry, "--out", tmp_path / "out", *changes)
        assert (result.exit_code, says in result.stderr) == (2, True), result.stderr
        assert not (tmp_path / "out").exists()
    result = rag("compose", tmp_path / "bad.jsonl", "--out", tmp_path / "out")
    assert (result.exit_code, f"{tmp_path / 'bad.jsonl'}:1: this is not JSON" in result.stderr) == (2, True)
