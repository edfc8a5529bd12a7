"""FishMask: which entries are chosen, that no others ever move, and what a file of them must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import adapt, load
from adapters.adapted import Adapted
from adapters.contract import ChecksState, NeedsExamples, Steps
from adapters.folder import WEIGHTS
from adapters.selective.fish_mask.config import FishMask
from rag.core.errors import AdapterError, AdapterMismatch, InputError
from tests.adapters.selective.steps import Make, adamw, losses, momentum, moved, prepare, take_steps, values
from tests.adapters.tiny import batch_for, tiny


def backbone_size(model: Any) -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith("classifier."))


def prepared(on: str = "llama", ratio: float = 0.01, **options: Any) -> Adapted:
    adapted = adapt(tiny(on, torch.float64), FishMask(ratio=ratio, **options))
    prepare(adapted, on)
    return adapted


def chosen(adapted: Adapted) -> dict[str, set[int]]:
    state = adapted.worn.state()
    return {name.removesuffix(".indices"): set(value.tolist()) for name, value in state.items() if name.endswith(".indices")}


@pytest.mark.parametrize("make", [adamw, momentum])
@pytest.mark.parametrize("on", ["llama", "gpt2", "bert", "t5"])
def test_exactly_the_chosen_entries_move(on: str, make: Make) -> None:
    adapted = prepared(on)
    before, model = values(adapted.base), adapted.base
    take_steps(adapted, on, make=make)
    where = {name: mask for name, mask in moved(before, model).items() if not name.startswith("classifier.")}
    indices = {name: set(mask.flatten().nonzero().flatten().tolist()) for name, mask in where.items()}
    assert indices == chosen(adapted)
    assert sum(map(len, indices.values())) == int(0.01 * backbone_size(model)) > 0


def test_the_head_trains_as_a_whole() -> None:
    adapted = prepared("bert")
    before = values(adapted.base)
    take_steps(adapted, "bert")
    where = moved(before, adapted.base)
    assert where["classifier.weight"].all()
    assert where["classifier.bias"].all()


def test_the_choice_is_the_top_of_all_squared_gradients_example_by_example() -> None:
    model = tiny("llama", torch.float64)
    names = [name for name, _ in model.named_parameters()]
    fisher = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for loss in losses(model, "llama")():
        for total, gradient in zip(fisher, torch.autograd.grad(loss, list(model.parameters())), strict=True):
            total += gradient**2
    flat = torch.cat([total.flatten() for total in fisher])
    bound = flat.sort(descending=True).values[int(0.01 * flat.numel()) - 1]
    expected = {name: set((total.flatten() >= bound).nonzero().flatten().tolist()) for name, total in zip(names, fisher, strict=True)}
    assert chosen(prepared()) == {name: indices for name, indices in expected.items() if indices}


def test_no_more_examples_are_drawn_than_asked_for() -> None:
    adapted = adapt(tiny("llama"), FishMask(examples=2))
    assert isinstance(adapted.worn, NeedsExamples)
    drawn = losses(adapted.model, "llama")()
    adapted.worn.prepare(lambda: drawn)
    assert len(list(drawn)) == 1


def test_a_choice_stays() -> None:
    adapted = prepared()
    first = chosen(adapted)
    take_steps(adapted, "llama")
    assert isinstance(adapted.worn, NeedsExamples)
    adapted.worn.prepare(lambda: pytest.fail("the examples are not needed a second time"))
    assert chosen(adapted) == first


def test_parameters_without_a_chosen_entry_do_not_train() -> None:
    adapted = adapt(tiny("llama"), FishMask(ratio=1e-3))
    assert set(adapted.trained()) == {name for name, _ in adapted.base.named_parameters()}
    prepare(adapted, "llama")
    assert set(adapted.trained()) == set(chosen(adapted))
    assert {name for name, parameter in adapted.base.named_parameters() if parameter.requires_grad} == set(chosen(adapted))
    assert len(adapted.trained()) < len(list(adapted.base.named_parameters()))


def test_a_tied_weight_is_one_parameter() -> None:
    adapted = prepared("gpt2", ratio=1.0)
    assert "transformer.wte.weight" in adapted.trained()
    assert "lm_head.weight" not in adapted.trained()


def test_the_file_holds_entries_and_no_more(tmp_path: Path) -> None:
    adapted = prepared()
    take_steps(adapted, "llama")
    state = adapted.worn.state()
    for name, value in state.items():
        assert value.dim() == 1
        assert value.dtype == (torch.int64 if name.endswith(".indices") else torch.float64)
    adapted.save(tmp_path / "saved")
    names = 2 * len(adapted.trained())
    assert (tmp_path / "saved" / WEIGHTS).stat().st_size < 16 * int(0.01 * backbone_size(adapted.base)) + 200 * names


def test_loaded_it_can_train_on_and_moves_the_same_entries(tmp_path: Path) -> None:
    adapted = prepared()
    take_steps(adapted, "llama")
    adapted.save(tmp_path / "saved")
    again = load(tiny("llama", torch.float64), tmp_path / "saved")
    assert chosen(again) == chosen(adapted)
    before = values(again.base)
    take_steps(again, "llama", make=momentum)
    indices = {name: set(where.flatten().nonzero().flatten().tolist()) for name, where in moved(before, again.base).items()}
    assert indices == chosen(adapted)
    assert not moved(values(tiny("llama", torch.float64)), again.remove())


def test_another_state_takes_the_place_of_the_first(tmp_path: Path) -> None:
    first, second = prepared(), adapt(tiny("llama", torch.float64), FishMask(ratio=0.01))
    assert isinstance(second.worn, NeedsExamples)
    batch = {key: value.flip(1) for key, value in batch_for("llama").items()}
    second.worn.prepare(lambda: iter([second.model(**batch).loss]))
    assert chosen(first) != chosen(second)
    take_steps(first, "llama")
    take_steps(second, "llama")
    first.worn.load_state({name: value.clone() for name, value in second.worn.state().items()})
    assert not moved(values(second.base), first.base)
    assert not moved(values(tiny("llama", torch.float64)), first.remove())


def test_removed_it_is_frozen_and_has_no_gradients() -> None:
    adapted = prepared()
    adapted.model(**batch_for("llama")).loss.backward()
    base = adapted.remove()
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in base.parameters())


def test_before_the_choice_it_says_to_train_first(tmp_path: Path) -> None:
    adapted = adapt(tiny("llama"), FishMask())
    assert isinstance(adapted.worn, Steps)
    for act in (adapted.worn.state, adapted.merged, adapted.worn.before_step, lambda: adapted.save(tmp_path / "x")):
        with pytest.raises(AdapterError, match="train it first"):
            act()


def test_no_examples_are_an_error() -> None:
    adapted = adapt(tiny("llama"), FishMask())
    assert isinstance(adapted.worn, NeedsExamples)
    with pytest.raises(AdapterError, match="at least one"):
        adapted.worn.prepare(lambda: iter(()))


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_example() -> None:
    adapted = adapt(tiny("llama"), FishMask())
    assert isinstance(adapted.worn, NeedsExamples)
    first, second, _ = losses(adapted.model, "llama")()
    with pytest.raises(AdapterError, match=r"example 2.*nan"):
        adapted.worn.prepare(lambda: iter([first, second * float("nan")]))


def test_a_ratio_below_one_entry_is_an_error() -> None:
    with pytest.raises(AdapterError, match="less than one"):
        adapt(tiny("llama"), FishMask(ratio=1e-9))


@pytest.mark.parametrize("ratio", [0, -0.1, 1.1, True, "0.1", float("nan")])
def test_a_ratio_is_a_share(ratio: Any) -> None:
    with pytest.raises(InputError, match="ratio"):
        FishMask(ratio=ratio)


@pytest.mark.parametrize("examples", [0, 1.5, True])
def test_examples_are_counted(examples: Any) -> None:
    with pytest.raises(InputError, match="examples"):
        FishMask(examples=examples)


def damaged(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    """``state`` made unfit in one way."""
    name = max((key for key in state if key.endswith(".indices")), key=lambda key: state[key].numel()).removesuffix(".indices")
    indices, found = state[f"{name}.indices"], state[f"{name}.values"]
    changes: dict[str, dict[str, torch.Tensor]] = {
        "unknown": {"model.none.weight.indices": indices, "model.none.weight.values": found},
        "neither": {f"{name}.other": found},
        "kind": {f"{name}.indices": indices.double()},
        "shape": {f"{name}.values": found[:-1]},
        "whole": {f"{name}.values": indices},
        "below": {f"{name}.indices": indices.clone().index_fill_(0, torch.tensor([0]), -1)},
        "above": {f"{name}.indices": indices.clone().index_fill_(0, torch.tensor([-1]), 10**9)},
        "twice": {f"{name}.indices": indices.clone().index_copy_(0, torch.tensor([1]), indices[:1])},
        "fewer": {f"{name}.indices": indices[:-1], f"{name}.values": found[:-1]},
    }
    left_out = {f"{name}.values"} if how == "alone" else set()
    return {key: value for key, value in {**state, **changes.get(how, {})}.items() if key not in left_out}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("unknown", "not .indices or .values of a parameter"),
        ("neither", "not .indices or .values of a parameter"),
        ("kind", "not one row of int64"),
        ("shape", "floating-point values"),
        ("whole", "floating-point values"),
        ("below", "rising indices"),
        ("above", "rising indices"),
        ("twice", "rising indices"),
        ("fewer", "with these options this model has"),
        ("alone", "is missing beside"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(how: str, says: str) -> None:
    state = prepared().worn.state()
    fresh = adapt(tiny("llama", torch.float64), FishMask(ratio=0.01))
    assert isinstance(fresh.worn, ChecksState)
    before = values(fresh.base)
    for act in (fresh.worn.check_state, fresh.worn.load_state):
        with pytest.raises(AdapterMismatch, match=says):
            act(damaged(state, how))
    assert not moved(before, fresh.base)


def test_the_error_of_a_file_that_does_not_fit_names_the_folder(tmp_path: Path) -> None:
    prepared(ratio=0.02).save(tmp_path / "two")
    with pytest.raises(AdapterMismatch, match=r"two: the adapter does not fit this model; it holds"):
        adapt(tiny("llama", torch.float64), FishMask(ratio=0.01)).load_state(tmp_path / "two")


def test_a_head_that_is_named_trains_as_a_whole_beside_it() -> None:
    adapted = adapt(tiny("llama"), FishMask(ratio=0.02), head=("lm_head",))
    before = adapted.base.lm_head.weight.detach().clone()
    trained = adapted.trained()
    assert len({id(parameter) for parameter in trained.values()}) == len(trained), "each parameter once"
    prepare(adapted, "llama")
    take_steps(adapted, "llama")
    assert (adapted.base.lm_head.weight != before).float().mean() > 0.9


def test_the_report_counts_entries_before_and_after_the_choice() -> None:
    adapted = adapt(tiny("llama"), FishMask(ratio=0.02))
    before = adapted.report()
    prepare(adapted, "llama")
    assert before == adapted.report()
    assert before.trained == int(0.02 * before.total)
    assert before.bytes == sum(tensor.numel() * tensor.element_size() for tensor in adapted.worn.state().values())
