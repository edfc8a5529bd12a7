from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.citations import attach, check, claims
from tests.generators.conftest import hits_of

SOURCES = hits_of("A suit may be worn outside for 6 hours.", "Mira Sollen keeps the lamp.", "The kitchen opens at seven.")


def cited(text: str) -> list[tuple[str, str]]:
    return [(claim.text, text[claim.start : claim.end]) for claim in claims(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The sky is blue [1].", [("The sky is blue  .", "[1]")]),
        ("The sky is blue. [1] Water is wet. [2]", [("The sky is blue.", "[1]"), ("Water is wet.", "[2]")]),
        ("The sky is blue.[1] Water is wet.[2]", [("The sky is blue.", "[1]"), ("Water is wet.", "[2]")]),
        ("The sky is blue [1][2]. Water is wet.", [("The sky is blue    .", "[1][2]")]),
        ("The sky is blue [1, 2].", [("The sky is blue  .", "[1, 2]")]),
        ("[1] The sky is blue. [2] Water is wet.", [("The sky is blue.", "[1]"), ("Water is wet.", "[2]")]),
        ("[1] The sky is blue.\n[2] Water is wet.", [("The sky is blue.", "[1]"), ("Water is wet.", "[2]")]),
        ("The sky is blue.\n[1]", [("The sky is blue.", "[1]")]),
        ("A is 3 [1] and B is 4 [2].", [("A is 3", "[1]"), ("and B is 4  .", "[2]")]),
        ("天空是蓝的。[1]水是湿的[2]。", [("天空是蓝的。", "[1]"), ("水是湿的 。", "[2]")]),
        ("天空是蓝的【1】。", [("天空是蓝的 。", "【1】")]),
        ("Nothing is cited.", []),
        ("", []),
        ("[1]", [("", "[1]")]),
    ],
)
def test_markers_and_their_claims(text, expected):
    assert [(claim.split(), marker) for claim, marker in cited(text)] == [(claim.split(), marker) for claim, marker in expected]


def test_a_citation_points_at_its_marker():
    text = "A suit may be worn for 6 hours [1]. The lamp is kept by Mira Sollen [2]."
    citations, notes = check(text, SOURCES, 0.5)
    assert [(c.number, text[c.start : c.end], c.passage.id, c.valid) for c in citations] == [(1, "[1]", "p1", True), (2, "[2]", "p2", True)]
    assert citations[0].supported == 1.0
    assert notes == []


def test_two_numbers_in_one_marker():
    text = "A suit may be worn for 6 hours [1, 3]."
    citations, notes = check(text, SOURCES, 0.5)
    assert [(c.number, text[c.start : c.end], c.valid) for c in citations] == [(1, "[1, 3]", True), (3, "[1, 3]", False)]
    assert len(notes) == 1


def test_an_unsupported_marker_is_invalid():
    citations, notes = check("The herring is blue [2].", SOURCES, 0.5)
    assert [(c.valid, c.supported) for c in citations] == [(False, 0.0)]
    assert notes == ["[2] at character 20 is not supported by its source"]


def test_a_number_that_the_passage_lacks_is_invalid():
    citations, notes = check("A suit may be worn outside for 8 hours [1].", SOURCES, 0.5)
    assert not citations[0].valid
    assert citations[0].supported > 0.5
    assert notes == ["[1] at character 39 is not supported by its source, which lacks 8"]


@pytest.mark.parametrize("number", [0, 4, 2016, 9999])
def test_a_marker_beyond_the_sources_is_a_note_and_no_citation(number):
    citations, notes = check(f"Mira Sollen keeps the lamp [{number}].", SOURCES, 0.5)
    assert citations == []
    assert notes == [f"[{number}] at character 27 points to no source; there are 3"]


def test_the_threshold():
    text = "Mira Sollen paints the lamp [2]."  # mira, sollen and lamp of four
    assert check(text, SOURCES, 0.75)[0][0].valid
    assert not check(text, SOURCES, 0.76)[0][0].valid


def test_attached_markers():
    text = "Mira Sollen keeps the lamp. The sea is green. A suit may be worn for 6 hours."
    suffix, citations = attach(text, SOURCES, 0.5)
    assert suffix == " [2][1]"
    whole = text + suffix
    assert [(c.number, whole[c.start : c.end], c.passage.id) for c in citations] == [(2, "[2]", "p2"), (1, "[1]", "p1")]
    assert all(c.valid and c.supported >= 0.5 for c in citations)


def test_a_wrong_number_is_not_attached():
    assert attach("A suit may be worn outside for 8 hours.", SOURCES, 0.5) == ("", [])


def test_a_passing_source_beats_a_wordier_one_with_a_wrong_number():
    sources = hits_of("Grey suits may be worn outside for 5 hours by divers.", "Worn for 6 hours: suits.")
    assert attach("Grey suits may be worn for 6 hours", sources, 0.5)[0] == " [2]"


@pytest.mark.parametrize(("text", "suffix"), [("Mira Sollen.", " [2]"), ("Mira Sollen.\n", "[2]"), ("", ""), ("The herring.", "")])
def test_what_is_appended(text, suffix):
    assert attach(text, SOURCES, 0.5)[0] == suffix


def test_nothing_to_attach_to():
    assert attach("Mira Sollen keeps the lamp.", [], 0.5) == ("", [])


@given(
    st.lists(
        st.sampled_from(["Mira keeps the lamp", ". ", "[1]", "[2, 3]", "【3】", "[99]", " ", "\n", "。", "灯", "6 hours", "[", "]"]),
        max_size=14,
    ).map("".join)
)
def test_any_answer_can_be_checked(text):
    citations, notes = check(text, SOURCES, 0.5)
    assert all(str(c.number) in text[c.start : c.end] and SOURCES[c.number - 1].passage is c.passage for c in citations)
    assert len(notes) >= sum(not c.valid for c in citations)
    suffix, attached = attach(text, SOURCES, 0.5)
    assert all((text + suffix)[c.start : c.end] == f"[{c.number}]" for c in attached)
