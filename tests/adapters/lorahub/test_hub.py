from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import load
from adapters.folder import read_card, read_config
from adapters.lorahub import LoRAHub
from adapters.lorahub.examples import batches
from adapters.registry import servable
from adapters.training.data import Answered
from rag.core.errors import AdapterError, InputError
from tests.adapters.lorahub.parts import Numbers, logits, saved, trained
from tests.adapters.tiny import batch_for, tiny

STARTS = (5, 15, 25, 35, 45)


def answered(answer: str, starts: Iterable[int]) -> list[Answered]:
    return [Answered(f"{start} {start + 1}", answer) for start in starts]


TASK = answered("60 61", STARTS)


def learnt(folder: Path, examples: list[Answered], seed: int) -> Path:
    return trained(folder, batches(tiny("llama"), Numbers(), examples, 9, 64)[0], seed)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four LoRAs of which the third learnt the task, on other examples than the few that are given."""
    root = tmp_path_factory.mktemp("loras")
    answers = {"one": "70 71", "two": "80 81", "task": "60 61", "three": "90 91"}
    return [learnt(root / name, answered(answer, range(7, 48, 4)), seed) for seed, (name, answer) in enumerate(answers.items())]


def test_it_finds_the_lora_of_the_task(folders: list[Path], tmp_path: Path) -> None:
    told: list[float] = []
    composed = LoRAHub().compose(tiny("llama", torch.float64), Numbers(), TASK, folders, lambda number, value, best: told.append(value))
    assert composed.best < composed.start - 0.3
    by_name = {source.name: abs(weight) for source, weight in zip(composed.sources, composed.weights, strict=True)}
    assert max(by_name, key=by_name.__getitem__) == "task"
    assert tuple(told) == composed.values
    assert len(told) <= 40
    _check_saved(composed, tmp_path / "composed")


def _check_saved(composed: Any, folder: Path) -> None:
    composed.save(folder, {"task": "successors"})
    again = load(tiny("llama", torch.float64), folder)
    assert torch.equal(logits(again.model), logits(composed.adapted.model))
    card = read_card(folder)
    assert (card["method"], card["task"], card["metrics"]["best"]) == ("LoRA", "successors", composed.best)
    told = card["composed"]
    assert [source["weight"] for source in told["sources"]] == list(composed.weights)
    assert all(len(source["sha256"]) == 64 for source in told["sources"])
    assert (told["options"]["seed"], told["values"]) == (0, list(composed.values))
    assert (read_config(folder)["r"], servable(folder)) == (2, None)


def test_where_nothing_helps_it_is_the_base_model(tmp_path: Path) -> None:
    folders = [saved(tmp_path / f"noise{seed}", seed=seed) for seed in (1, 2)]
    model = tiny("llama", torch.float64)
    base = logits(model)
    composed = replace(LoRAHub(), penalty=1e6).compose(model, Numbers(), TASK, folders)
    assert (composed.best, composed.weights) == (composed.start, (0.0, 0.0))
    assert torch.equal(logits(composed.adapted.model), base)
    assert composed.adapted.remove() is model
    assert torch.equal(logits(model), base)


def test_it_is_repeatable(folders: list[Path]) -> None:
    runs = [LoRAHub(evaluations=8).compose(tiny("llama", torch.float64), Numbers(), TASK, folders) for _ in range(2)]
    assert (runs[0].weights, runs[0].values) == (runs[1].weights, runs[1].values)


def test_a_loss_that_is_no_number_leaves_the_model_as_it_was(folders: list[Path]) -> None:
    from adapters.lorahub.composition import read_stack

    stack = read_stack(folders)
    next(iter(stack.a.values()))[1] = math.nan
    model = tiny("llama", torch.float64)
    base = logits(model)
    with pytest.raises(AdapterError, match="not a number at evaluation 0"):  # 0 * nan is nan
        LoRAHub().compose_stack(model, [batch_for("llama")], stack)
    assert torch.equal(logits(model), base)
    assert not any("lora" in name for name, _ in model.named_modules())


def test_a_search_that_is_stopped_leaves_the_model_as_it_was(folders: list[Path]) -> None:
    def stop(number: int, value: float, best: float) -> None:
        raise KeyboardInterrupt

    model = tiny("llama", torch.float64)
    with pytest.raises(KeyboardInterrupt):
        LoRAHub().compose(model, Numbers(), TASK, folders, stop)
    assert not any("lora" in name for name, _ in model.named_modules())


def test_too_few_evaluations_are_refused(folders: list[Path]) -> None:
    with pytest.raises(InputError, match="choose at most 3, or raise evaluations to 8"):
        LoRAHub(evaluations=4).compose(tiny("llama"), Numbers(), TASK, folders)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"evaluations": 0}, "evaluations is a whole number from 1"),
        ({"batch": True}, "batch is a whole number"),
        ({"max_tokens": 2.5}, "max_tokens is a whole number"),
        ({"bound": -1}, "bound is a number from 0"),
        ({"bound": 0.4}, "first_step is above 0 and not above bound"),
        ({"first_step": 0}, "first_step is above 0"),
        ({"penalty": math.nan}, "penalty is a number from 0"),
        ({"norm": "max"}, "norm is one of 'mean', 'sum'"),
        ({"search": "adam"}, "search is one of 'cobyla', 'nevergrad'"),
        ({"seed": -1}, "seed is a whole number from 0"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        LoRAHub(**options)
