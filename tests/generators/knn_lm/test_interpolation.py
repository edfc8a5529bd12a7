"""The mixture on numbers that were worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from generators.knn_lm import Interpolation, Neighbours
from rag.core.errors import InputError

NEAR = Neighbours(
    np.array([[0.0, math.log(4) * 2, math.log(4) * 2, 90.0], [5.0, np.inf, np.inf, np.inf], [np.inf] * 4], dtype=np.float32),
    np.array([[2, 1, 2, 0], [3, -1, -1, -1], [-1] * 4]),
)
"""With temperature 2 and k 3 the first query has the weights 1, 1/4, 1/4; the second one neighbour; the third none."""
BASE = np.log(np.array([[0.1, 0.2, 0.3, 0.4]] * 3))


def test_what_each_neighbour_adds() -> None:
    shares = Interpolation(0.5, 2.0, 3).shares(NEAR)
    assert shares[0] == pytest.approx([4 / 6, 1 / 6, 1 / 6], abs=1e-6)
    assert shares[1].tolist() == [1, 0, 0]
    assert shares[2].tolist() == [0, 0, 0]


def test_the_distribution() -> None:
    p = np.exp(Interpolation(0.25, 2.0, 3).distribution(BASE, NEAR))
    near = np.array([0, 1 / 6, 5 / 6, 0])
    assert p[0] == pytest.approx(0.25 * near + 0.75 * np.exp(BASE[0]), abs=1e-6)
    assert p[1] == pytest.approx(0.75 * np.exp(BASE[1]) + np.array([0, 0, 0, 0.25]))
    assert p[2] == pytest.approx(np.exp(BASE[2]))  # nothing was found: the model alone
    assert p.sum(axis=1) == pytest.approx(np.ones(3))


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.9, 1.0])
def test_targets_have_their_probability_of_the_distribution(weight: float) -> None:
    mixture = Interpolation(weight, 0.7, 4)
    whole = mixture.distribution(BASE, NEAR)
    for token in range(4):
        targets = np.full(3, token)
        assert mixture.logprobs(BASE[:, token], NEAR, targets) == pytest.approx(whole[:, token])


def test_the_ends_of_the_weight() -> None:
    assert Interpolation(0, 2.0, 3).distribution(BASE, NEAR) == pytest.approx(BASE)
    alone = Interpolation(1, 2.0, 3).logprobs(BASE[:, 3], NEAR, np.array([3, 3, 3]))
    assert alone.tolist() == [-math.inf, 0.0, pytest.approx(math.log(0.4))]


def test_far_neighbours_do_not_vanish() -> None:
    far = Neighbours(np.array([[1e6, 1e6 + 1]], dtype=np.float32), np.array([[0, 1]]))
    assert Interpolation(0.5, 1.0, 2).shares(far)[0] == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": -0.01}, "from 0 to 1"),
        ({"weight": 1.01}, "from 0 to 1"),
        ({"weight": math.nan}, "from 0 to 1"),
        ({"weight": True}, "from 0 to 1"),
        ({"weight": "0.5"}, "from 0 to 1"),
        ({"temperature": 0.0}, "temperature is a positive number"),
        ({"temperature": -1.0}, "temperature is a positive number"),
        ({"temperature": math.inf}, "temperature is a positive number"),
        ({"k": 0}, "k is a whole number"),
        ({"k": 1.5}, "k is a whole number"),
    ],
)
def test_settings_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Interpolation(**arguments)
