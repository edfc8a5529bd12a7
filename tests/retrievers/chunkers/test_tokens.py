from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrievers.chunkers import approximate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        (" \n", 0),
        ("a suit", 2),
        ("international", 3),
        ("1999", 2),
        ("太空服", 3),
        ("a, b.", 4),
        ("привет", 3),
        ("😀😀", 2),
        ("snake_case", 3),
    ],
)
def test_counts(text, tokens):
    assert approximate_tokens(text) == tokens


@given(st.text(), st.text())
def test_parts_within_a_budget_stay_within_it_together(a, b):
    assert max(approximate_tokens(a), approximate_tokens(b)) <= approximate_tokens(a + b) <= approximate_tokens(a) + approximate_tokens(b)
