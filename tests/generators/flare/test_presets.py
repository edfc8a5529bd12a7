from __future__ import annotations

import pytest

from generators.flare.flare import Flare
from generators.flare.presets import PRESETS
from rag.core.errors import InputError
from tests.generators.conftest import ScriptedModel


@pytest.mark.parametrize(
    ("name", "theta", "beta", "query", "keep_first", "k", "max_tokens"),
    [  # tables 7 and 9 of the paper
        ("2wiki", 0.8, 0.4, "implicit", False, 2, 256),
        ("strategyqa", 0.4, 0.4, "implicit", False, 3, 256),
        ("asqa", 0.8, 0.4, "explicit", True, 3, 256),
        ("asqa-hint", 0.8, 0.4, "explicit", True, 3, 256),
        ("wikiasp", 0.8, 0.4, "explicit", True, 5, 512),
    ],
)
def test_the_papers_settings(name, theta, beta, query, keep_first, k, max_tokens):
    flare = Flare.preset(ScriptedModel(), name)
    assert (flare.theta, flare.beta, flare.query, flare.keep_first) == (theta, beta, query, keep_first)
    assert (flare.k, flare.max_tokens, flare.look_ahead, flare.keep_context) == (k, max_tokens, 64, False)


def test_a_preset_can_be_changed_and_stays_what_it_is():
    before = dict(PRESETS["2wiki"])
    assert Flare.preset(ScriptedModel(), "2wiki", k=7).k == 7
    assert PRESETS["2wiki"] == before


def test_an_unknown_preset():
    with pytest.raises(InputError, match=r"no preset 'nq'.*2wiki, strategyqa, asqa, asqa-hint, wikiasp"):
        Flare.preset(ScriptedModel(), "nq")
