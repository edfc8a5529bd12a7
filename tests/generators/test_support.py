from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.support import content, support

PASSAGE = "The pressure suits of Halvard Deep may be worn outside for 6 hours. Mira Sollen built three airlocks in 1,998 and none failed."


@pytest.mark.parametrize(
    ("claim", "passes"),
    [
        ("A pressure suit may be worn outside for 6 hours.", True),
        ("A pressure suit may be worn outside for six hours.", True),
        ("A pressure suit may be worn outside for 5 hours.", False),  # one wrong number outweighs all the right words
        ("Mira Sollen built 3 airlocks.", True),
        ("Mira Sollen built them in 1998.", True),
        ("Mira Sollen built airlocks in 1999.", False),
        ("The kitchen serves herring on Fridays.", False),
        ("Mira Sollen", True),
        ("1. Mira Sollen built airlocks.", True),  # the number of a list item is no claim
        ("Yes.", False),
        ("", False),
    ],
)
def test_english_claims(claim, passes):
    assert support(claim, PASSAGE).passes(0.5) is passes


@pytest.mark.parametrize(
    ("claim", "passes"),
    [
        ("潜水服最多可以穿6小时。", True),
        ("潜水服最多可以穿８小时。", False),
        ("厨房每周五供应鲱鱼。", False),
        ("米拉在1998年建造了气闸。", True),
    ],
)
def test_chinese_claims(claim, passes):
    assert support(claim, "潜水服在外面最多可以穿 6 小时。米拉于1998年建造了三个气闸。").passes(0.5) is passes


def test_the_share_by_hand():
    found = support("Mira painted airlocks 7 times", PASSAGE)  # mira and airlock are held; paint, time and 7 are not
    assert found.share == pytest.approx(2 / 5)
    assert found.missing_numbers == ("7",)


def test_a_negation_is_content():
    assert support("Mira did not fail", PASSAGE).share < support("Mira failed", PASSAGE).share == 1.0


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,234,567.5 m", {"1234567.5"}),
        ("at 10:30", {"10:30"}),
        ("COVID-19", {"19"}),
        ("3.14", {"3.14"}),
        ("１２ cats", {"12"}),
        ("7,5", {"7,5"}),
    ],
)
def test_numbers(text, numbers):
    assert content(text)[1] == numbers


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_share_is_a_share_and_more_text_never_lowers_it(claim, passage):
    small, large = support(claim, passage), support(claim, f"{passage}\n{claim}")
    assert 0 <= small.share <= 1
    assert large.share == (1.0 if any(content(claim)) else 0.0) or claim.strip()[:1].isdigit() or claim.strip()[:1] == "("
    assert set(large.missing_numbers) <= set(small.missing_numbers)
