"""The Fisher information: squared example by example, and its largest entries."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adapters.selective.fisher import Fisher


def two() -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]])), "b": nn.Parameter(torch.tensor([5.0]))}


def test_it_is_the_mean_of_squares_and_not_the_square_of_the_mean() -> None:
    parameters = two()
    a = parameters["a"]
    apart, together = Fisher(parameters), Fisher(parameters)
    apart.measure([a.sum(), -a.sum()])
    together.measure([(a.sum() - a.sum()) / 2])
    assert torch.equal(apart.mean()["a"], torch.ones(2, 2))
    assert torch.equal(together.mean()["a"], torch.zeros(2, 2))


def test_it_is_exact_on_a_small_case() -> None:
    parameters = two()
    fisher = Fisher(parameters)
    fisher.measure([(parameters["a"] ** 2).sum(), 3 * parameters["b"].sum()])
    assert torch.equal(fisher.mean()["a"], torch.tensor([[2.0, 8.0], [18.0, 32.0]]))
    assert torch.equal(fisher.mean()["b"], torch.tensor([4.5]))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, {"a": [3]}), (2, {"a": [2, 3]}), (3, {"a": [1, 2, 3]}), (4, {"a": [1, 2, 3], "b": [0]}), (5, {"a": [0, 1, 2, 3], "b": [0]})],
)
def test_the_largest_are_of_all_parameters_together(count: int, expected: dict[str, list[int]]) -> None:
    parameters = two()
    fisher = Fisher(parameters)
    fisher.measure([(parameters["a"] ** 2).sum(), 3 * parameters["b"].sum()])
    masks = fisher.largest(count)
    assert {name: mask.flatten().nonzero().flatten().tolist() for name, mask in masks.items()} == expected
    assert all(mask.shape == parameters[name].shape for name, mask in masks.items())


def test_among_equals_there_are_exactly_as_many_as_asked_for() -> None:
    parameters = two()
    fisher = Fisher(parameters)
    fisher.measure([parameters["a"].sum() + parameters["b"].sum()])
    assert sum(int(mask.sum()) for mask in fisher.largest(3).values()) == 3


def test_it_is_float32_for_any_model() -> None:
    parameters = {"a": nn.Parameter(torch.ones(3, dtype=torch.bfloat16))}
    fisher = Fisher(parameters)
    fisher.measure([(parameters["a"].float() * 1.5).sum()])
    assert fisher.mean()["a"].dtype == torch.float32
    assert torch.equal(fisher.mean()["a"], torch.full((3,), 2.25))
