from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

from generators.decoupled.batches import IGNORED, Example, batch, drawn  # noqa: E402
from rag.core.errors import InputError  # noqa: E402

CPU = torch.device("cpu")
ROWS = [Example(((5, 6), (7, 8, 9)), (10, 11), (12, 13, 1)), Example(((14,),), (), (15,))]


def test_only_the_target_is_scored_and_each_token_is_predicted_from_those_before_it() -> None:
    made = batch(ROWS, 0, 2, CPU)
    assert made.ids.tolist() == [[0, 10, 11, 2, 12, 13], [0, 2, 0, 0, 0, 0]]
    assert made.labels.tolist() == [[IGNORED, IGNORED, IGNORED, 12, 13, 1], [IGNORED, 15, *[IGNORED] * 4]]
    assert made.mask.tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0]]
    assert made.tokens == 6 + 2 + 2 + 3 + 1


def test_contexts_are_rows_of_their_own() -> None:
    made = batch(ROWS, 0, 2, CPU)
    assert made.contexts.tolist() == [[5, 6, 0], [7, 8, 9], [14, 0, 0]]
    assert made.contexts_mask.tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert made.places.tolist() == [[0, 1], [2, -1]]


def test_no_contexts_at_all() -> None:
    made = batch([Example((), (10,), (12,)), Example((), (), (12, 1))], 0, 2, CPU)
    assert made.places.shape == (2, 0)
    assert made.contexts.shape == (0, 0)
    assert made.tokens == 3 + 3


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "one example"),
        ([Example(((5,),), (), ())], "one token"),
        ([Example(((5,), ()), (), (6,))], "one token"),
        ([ROWS[0], Example((), (), (6,))], "either each example"),
    ],
)
def test_what_cannot_be_learnt_from(rows: list[Example], said: str) -> None:
    with pytest.raises(InputError, match=said):
        batch(rows, 0, 2, CPU)


def test_each_epoch_has_every_example_once_in_another_order() -> None:
    epochs = [[drawn(10, 4, 7, step) for step in range(start, start + 3)] for start in (0, 3)]
    assert [list(map(len, epoch)) for epoch in epochs] == [[4, 4, 2]] * 2
    orders = [list(itertools.chain(*epoch)) for epoch in epochs]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1]
    assert drawn(10, 4, 7, 4) == epochs[1][1]
    assert list(itertools.chain(*(drawn(10, 4, 8, step) for step in range(3)))) != orders[0]
