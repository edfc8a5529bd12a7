from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.self_rag.scores import ABSENT, CONTROL, GROUPS, ISREL, ISSUP, ISUSE, RETRIEVE, Segment, without_control
from tests.generators.self_rag.conftest import tokens

LOGPROBS = st.one_of(st.floats(-60, 0), st.just(ABSENT))


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) if p else ABSENT for p in probabilities]


def test_the_trained_vocabulary_has_15_tokens():
    assert len(set(CONTROL)) == len(CONTROL) == 15


@pytest.mark.parametrize(
    ("group", "probabilities", "score"),
    [
        (RETRIEVE, (0.3, 0.1), 0.75),
        (ISREL, (0.2, 0.6), 0.25),
        (ISSUP, (0.2, 0.1, 0.1), 0.625),
        (ISSUP, (0.0, 0.4, 0.0), 0.5),
        (ISUSE, (0.1, 0.1, 0.2, 0.4, 0.2), 0.25),
        (ISUSE, (0.5, 0.0, 0.0, 0.0, 0.0), -1.0),
        (ISUSE, (0.0, 0.0, 0.0, 0.0, 0.01), 1.0),
    ],
)
def test_scores_are_those_of_the_paper(group, probabilities, score):
    assert group.score(logs(*probabilities)) == pytest.approx(score)


def test_a_group_that_the_model_does_not_name_scores_0():
    for group in GROUPS:
        assert group.score([ABSENT] * len(group.tokens)) == 0


def test_more_certainty_of_retrieval_is_more_not_less():
    # The released script for short answers takes the ratio of log-probabilities, which falls as the model becomes sure.
    assert RETRIEVE.score(logs(0.99, 0.01)) > 0.98
    assert RETRIEVE.score(logs(0.01, 0.99)) < 0.02


@given(st.lists(LOGPROBS, min_size=5, max_size=5))
def test_ranges(logprobs):
    relevance, support, utility = ISREL.score(logprobs[:2]), ISSUP.score(logprobs[:3]), ISUSE.score(logprobs)
    assert 0 <= relevance <= 1
    assert 0 <= support <= 1
    assert -1 <= utility <= 1
    assert -0.5 <= Segment("x", relevance=relevance, support=support, utility=utility).score((1.0, 1.0, 0.5)) <= 2.5


@given(st.lists(st.floats(-30, 0), min_size=5, max_size=5), st.floats(-700, 700))
def test_adding_a_constant_to_the_logits_of_a_group_changes_nothing(logits, constant):
    for group in GROUPS:
        own = logits[: len(group.tokens)]
        assert group.score([value + constant for value in own]) == pytest.approx(group.score(own), abs=1e-9)


def test_the_extreme_scores():
    assert Segment("x", utility=-1.0).score((1.0, 1.0, 0.5)) == -0.5
    assert Segment("x", relevance=1.0, support=1.0, utility=1.0).score((1.0, 1.0, 0.5)) == 2.5


def test_the_likelihood_is_the_exponent_of_the_mean_and_counts_on_request():
    segment = Segment("one two", relevance=0.5, tokens=tokens("one two", math.log(0.25)))
    assert segment.likelihood == pytest.approx(0.25)
    assert segment.score((1.0, 1.0, 0.5)) == 0.5
    assert segment.score((1.0, 1.0, 0.5), seq_score=True) == pytest.approx(0.75)
    assert Segment("").likelihood == 0


@pytest.mark.parametrize("text", ["The lamp is lit. It is red.", "灯亮着。", "a [note] <p> of [1]"])
def test_stripping_control_tokens_gives_the_text_back(text):
    first, _, rest = text.partition(". ")
    marked = f"[Retrieval]<paragraph>Lamp\nIt is [Relevant].\n\nYes.</paragraph>[Relevant]{first}[Fully supported]"
    marked += f"[No Retrieval]{'. ' + rest if rest else ''}[Continue to Use Evidence][Utility:5]"
    assert without_control(marked) == text
