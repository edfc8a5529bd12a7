from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retrievers.chunkers import sentence_spans

PIECES = [
    "Dr. ",
    "U.S. ",
    "e.g. ",
    "3.5",
    "!",
    "?",
    ". ",
    "...",
    "…",
    "……",
    "。",
    "！",
    "”",
    '"',
    ")",
    "\n",
    "\n\n",
    "\r\n",
    "  ",
    "- a",
    "| b |",
    "word",
    "Word ",
]
PIECES += ["中文", "\u3000", "http://a.b/c?d. ", "\u2028", "\x85", "\ud800", "\0", "😀", "[1]", "1. "]
texts = st.one_of(st.text(alphabet=st.characters()), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))


def split(text: str) -> list[str]:
    return [text[a:b] for a, b in sentence_spans(text)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. Smith went to the U.S. in 1999. ", "He paid $3.5 million, e.g. for a house. ", "Then left."],
        [
            '"Is it true?" she asked. ',
            "Yes! ",
            "See https://example.com/a.b?c=d. ",
            "Wait... ",
            "What? ",
            "(He left.) ",
            'He said "Go." ',
            "Then.",
        ],
        ["The U.S. Army came. ", "It was in the U.S. ", "He left. ", "J. R. R. Tolkien wrote it. ", "She has a Ph.D. ", "He has none."],
        [
            "See Fig. 3 and No. 5. ",
            "No. ",
            "Brown v. Board was decided. ",
            "Lefèvre (c. 1455–1536) was first.[12] ",
            "He lived.[citation needed] ",
            "End.",
        ],
        ["It grew to 100 Gbit/s. ", "In 2007 it ended. ", "To live, . . . one must eat. ", "Done."],
        ["今天天气很好。", "我们去公园吧！", "好吗？", "“你好。”", "他说。", "他停下……", "然后走了；后来又回来。", "价格是3.5元。"],
        ["今天很好。", "We went. ", "好吗?", "好的!", "OK."],
        ["A paragraph without a stop\n\n", "Another\n \n", "Third."],
        ["Title\n", "A long line of text that goes on for much longer than the title above it ever did."],
        [
            "Things to bring to the walk outside today:\n",
            "- a suit that has been checked by two people\n",
            "- boots that fit over the suit and its liner\n",
        ],
        ["name: Helmet of the kind that is worn outside\n", "hours: 8\n", "note: checked each day before the walk begins"],
        ["1. Put it on. ", "Check it.\n", "2. Go out."],
        ["| Part | Hours |\n", "| Helmet | 8 |\n"],
    ],
)
def test_sentences(sentences):
    assert split("".join(sentences)) == sentences


def test_wrapped_lines_are_one_sentence():
    text = "A suit may be worn outside for eight hours at most,\nand it must be checked before each walk by two\npeople. Then go.\n"
    assert split(text) == [text[:-9], "Then go.\n"]
    chinese = "太空服最多可以在舱外连续使用八个小时这是我们长期以来的规定而且每次\n出舱之前都必须由两名熟悉它的人检查。"
    assert split(chinese) == [chinese]


def test_leading_space_belongs_to_the_first_sentence_and_blank_text_is_one():
    assert split("\n\n  One. Two.") == ["\n\n  One. ", "Two."]
    assert split(" \n\n ") == [" \n\n "]
    assert split("") == []


@given(texts)
@settings(max_examples=300)
def test_spans_tile_any_text(text):
    spans = sentence_spans(text)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(a < b for a, b in spans)
    assert [b for _, b in spans][:-1] == [a for a, _ in spans][1:]


@given(texts)
@example("a:\n  - b\n\t- c\n  ")
@example("a\n \u2028\nb")
def test_no_sentence_begins_with_white_space_after_the_first(text):
    assert not any(text[a].isspace() for a, _ in sentence_spans(text)[1:])
