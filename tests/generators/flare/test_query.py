from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.flare.query import doubtful, masked, terms
from generators.flare.sentence import Piece

probabilities = st.floats(0, 1)
texts = st.sampled_from([" lamp", " 1815", "灯", ",", ".", "a"])
sentences = st.lists(st.builds(Piece, texts, probabilities, st.integers(1, 3)), max_size=30)


def pieces(*found: tuple[str, float]) -> list[Piece]:
    return [Piece(text, probability, 1) for text, probability in found]


JOE = pieces((" Joe", 0.9), (" went", 0.8), (" to", 0.9), (" Penn", 0.3), (".", 0.9))


def test_a_masked_token_becomes_one_space():
    assert masked(JOE, 0.4, 64) == "Joe went to ."
    assert masked(pieces((" Joe", 0.9), (" went", 0.1), (" to", 0.1), (" Penn", 0.9)), 0.4, 64) == "Joe   Penn"
    assert masked(pieces((" Joe", 0.1)), 0.4, 64) == ""


def test_a_token_at_beta_stays():
    assert doubtful(pieces(("a", 0.4), ("b", 0.39), ("c", 0.41)), 0.4) == [1]


@settings(deadline=None)
@given(sentences)
def test_with_beta_0_the_query_is_the_sentence(sentence):
    assert masked(sentence, 0.0, 1000) == "".join(piece.text for piece in sentence).strip()


@settings(deadline=None)
@given(sentences, probabilities, probabilities)
def test_masks_are_nested_in_beta(sentence, one, other):
    low, high = sorted((one, other))
    assert set(doubtful(sentence, low)) <= set(doubtful(sentence, high))


def test_a_long_query_is_cut_to_its_last_tokens():
    long = pieces(*((f" w{number}", 0.9) for number in range(70)))
    assert masked(long, 0.4, 64).split() == [f"w{number}" for number in range(6, 70)]
    assert masked(pieces((" a", 0.9), (" b", 0.1), (" c", 0.9)), 0.4, 2) == "a  c"
    assert masked([Piece("灯", 0.9, 3), Piece("亮", 0.9, 3)], 0.4, 3) == "亮"


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        (JOE, ["Penn"]),
        (pieces((" Joe", 0.9), (" Bid", 0.9), ("en", 0.1), (" won", 0.9)), ["Biden"]),
        (pieces((" In", 0.9), (" 18", 0.1), ("15", 0.1), (" he", 0.9)), ["1815"]),
        (pieces((" A", 0.9), (",", 0.1)), []),
        (pieces((" A", 0.9)), []),
        (pieces(("灯", 0.1), ("塔", 0.1), ("在", 0.9), ("海", 0.9)), ["灯塔"]),
    ],
)
def test_terms_are_the_doubtful_stretches_as_whole_words(sentence, found):
    assert terms(sentence, 0.4) == found


@pytest.mark.parametrize(("apart", "count"), [(1, 1), (4, 1), (5, 2), (6, 2)])
def test_stretches_less_than_five_tokens_apart_are_one(apart, count):
    sentence = pieces((" x", 0.1), *((" sure", 0.9) for _ in range(apart - 1)), (" y", 0.1))
    assert len(terms(sentence, 0.4)) == count


def test_a_term_is_asked_for_once():
    assert terms(pieces((" x", 0.1), *((" sure", 0.9) for _ in range(9)), (" x", 0.1)), 0.4) == ["x"]
