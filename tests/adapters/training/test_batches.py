from __future__ import annotations

from itertools import islice

import pytest

from adapters.training.batches import Order, in_order
from adapters.training.tasks import Example
from rag.core.errors import InputError


def rows(count: int) -> list[Example]:
    return [Example((tuple(range(1 + number * 7 % 13)), (number,))) for number in range(count)]


def numbers(batches: list[list[Example]]) -> list[int]:
    return [example.parts[1][0] for batch in batches for example in batch]


def test_an_epoch_holds_every_example_once_in_an_order_of_its_own() -> None:
    order = Order(rows(23), 4, seed=1)
    epochs = [numbers(order.epoch(number)) for number in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(23))
    assert epochs[0] != epochs[1]
    assert numbers(Order(rows(23), 4, seed=1).epoch(1)) == epochs[1]
    assert numbers(Order(rows(23), 4, seed=2).epoch(1)) != epochs[1]


def test_a_batch_holds_examples_of_like_length() -> None:
    padding = sum(max(e.length for e in batch) - e.length for batch in Order(rows(130), 10).epoch(0) for e in batch)
    plain = rows(130)
    unsorted = sum(max(e.length for e in plain[at : at + 10]) - e.length for at in range(0, 130, 10) for e in plain[at : at + 10])
    assert padding < unsorted / 5
    shortest_first = [batch[0].length for batch in Order(rows(130), 10).epoch(0)]
    assert shortest_first != sorted(shortest_first)


def test_a_step_is_several_batches_and_one_can_start_anywhere() -> None:
    order = Order(rows(23), 4, accumulate=4)
    assert order.per_epoch == 2  # six batches: four, and two
    steps = list(islice(order.steps(), 5))
    assert [len(step) for step in steps] == [4, 2, 4, 2, 4]
    for start in range(5):
        assert [numbers(step) for step in islice(order.steps(start), 5 - start)] == [numbers(step) for step in steps[start:]]


def test_a_rest_that_is_too_small_joins_the_batch_before_it() -> None:
    assert sorted(len(batch) for batch in Order(rows(9), 4, least=2).epoch(0)) == [4, 5]
    assert [len(batch) for batch in in_order(rows(9), 4, 2)] == [4, 5]
    assert [len(batch) for batch in in_order(rows(9), 4)] == [4, 4, 1]
    with pytest.raises(InputError, match="batch is 2 or more for an encoder, not 1"):
        Order(rows(9), 1, least=2)
    with pytest.raises(InputError, match="needs 2 examples or more; the data has 1"):
        Order(rows(1), 4, least=2)


def test_a_first_look_sees_every_example() -> None:
    seen = [example.parts[1][0] for example in Order(rows(9), 4).shuffled()]
    assert sorted(seen) == list(range(9))
    assert seen != list(range(9))
