from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.crag.strips import check_cut, strips_of
from rag.core.errors import InputError

CUTS = ["sentences", "words", "whole"]


def test_three_sentences_make_a_strip():
    text = "One is here. Two is here. Three is here.  Four is here. Five is here."
    assert strips_of(text, "sentences") == ["One is here. Two is here. Three is here.", "Four is here. Five is here."]
    assert strips_of("第一句。第二句。第三句。第四句。", "sentences") == ["第一句。第二句。第三句。", "第四句。"]


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (50, [50]), (59, [59]), (60, [50, 10]), (109, [50, 59]), (110, [50, 50, 10])])
def test_fifty_words_make_a_strip_and_fewer_than_ten_join_the_last(count, sizes):
    assert [len(strip.split()) for strip in strips_of(" ".join(f"w{i}" for i in range(count)), "words")] == sizes
    assert [len(strip) for strip in strips_of("灯" * count, "words")] == sizes


def test_whole_is_the_passage():
    assert strips_of("One. Two.\n\nThree. Four.", "whole") == ["One. Two.\n\nThree. Four."]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("text", ["", " \n\t "])
def test_nothing_gives_no_strip(cut, text):
    assert strips_of(text, cut) == []


@pytest.mark.parametrize("cut", CUTS)
@given(text=st.text(alphabet="ab. \n。灯?!", max_size=400))
def test_only_white_space_gets_lost(cut, text):
    assert "".join("".join(strips_of(text, cut)).split()) == "".join(text.split())


def test_another_cut_is_refused():
    with pytest.raises(InputError, match="'sentences', 'words', 'whole'"):
        check_cut("lines")
