from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.core.errors import InputError
from rag.core.registry import configuration, registered
from rag.core.types import Document
from retrievers.chunkers import SentenceChunker

TEXT = "Suits are white. Boots are black. Helmets are heavy. Gloves are warm. Belts are long."
documents = st.one_of(
    st.text(alphabet=st.characters(), max_size=300),
    st.lists(
        st.sampled_from(["One two. ", "三四五。", "a", "，", ", ", "\n", "\n\n", "long" * 20, " ", "; ", "😀", "\ud800", "\u3000"]),
        max_size=60,
    ).map("".join),
).map(lambda text: Document("d", text, "T", metadata={"n": 1}))


def words(text: str) -> int:
    return len(text.split())


def test_sentences_are_packed_and_the_last_is_repeated():
    passages = SentenceChunker(max_tokens=9, overlap=1, tokenizer=words).chunk(Document("d", TEXT, "Kit"))
    assert [p.text for p in passages] == [
        "Suits are white. Boots are black. Helmets are heavy.",
        "Helmets are heavy. Gloves are warm. Belts are long.",
    ]
    assert [(p.id, p.title, p.start) for p in passages] == [("d:0", "Kit", 0), ("d:1", "Kit", 34)]


def test_without_overlap_nothing_is_repeated():
    passages = SentenceChunker(max_tokens=9, overlap=0, tokenizer=words).chunk(Document("d", TEXT))
    assert [p.start for p in passages] == [0, 53]


def test_an_overlap_over_half_the_budget_is_left_out():
    passages = SentenceChunker(max_tokens=5, overlap=1, tokenizer=words).chunk(Document("d", TEXT))
    assert len(passages) == 5


def test_a_short_document_is_one_passage_without_the_white_space_around_it():
    (passage,) = SentenceChunker().chunk(Document("d", "\n  Text. More.\n"))
    assert (passage.text, passage.start, passage.end) == ("Text. More.", 3, 14)


@pytest.mark.parametrize("text", ["", " \n\n\t\u3000"])
def test_a_blank_document_has_no_passage(text):
    assert SentenceChunker().chunk(Document("d", text)) == []


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("aa bb, cc dd ee, ff", ["aa bb,", "cc dd ee,", "ff"]),
        ("aa bb cc dd; ee, ff", ["aa bb cc", "dd; ee, ff"]),
        ("aa bb cc dd ee", ["aa bb cc", "dd ee"]),
        ("aa bb\ncc dd ee", ["aa bb", "cc dd ee"]),
    ],
)
def test_a_long_sentence_is_cut_at_the_kindest_place(text, pieces):
    assert [p.text for p in SentenceChunker(max_tokens=3, overlap=0, tokenizer=words).chunk(Document("d", text))] == pieces


def test_a_text_without_spaces_is_cut_between_characters(check):
    passages = check(SentenceChunker(max_tokens=10, overlap=0), Document("d", "长" * 95), 10)
    assert [len(p.text) for p in passages] == [10] * 9 + [5]


def test_a_character_over_the_budget_is_not_lost():
    passages = SentenceChunker(max_tokens=2, overlap=0, tokenizer=lambda text: 3 * len(text)).chunk(Document("d", "abc"))
    assert [p.text for p in passages] == ["a", "b", "c"]


@given(documents, st.integers(1, 30), st.integers(0, 5))
@settings(max_examples=300)
def test_any_text_is_covered_in_order_and_within_the_budget(check, document, budget, overlap):
    check(SentenceChunker(budget, min(overlap, budget - 1)), document, budget)


def test_each_text_is_counted_once():
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return words(text)

    text = TEXT * 50
    SentenceChunker(max_tokens=9, overlap=2, tokenizer=count).chunk(Document("d", text))
    assert sum(map(len, asked)) == len(text)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1, not 0"),
        ({"max_tokens": 1.5}, "not 1.5"),
        ({"max_tokens": True}, "not True"),
        ({"max_tokens": "200"}, "not '200'"),
        ({"overlap": -1}, "overlap must be a whole number of at least 0"),
        ({"max_tokens": 5, "overlap": 5}, "must be smaller than max_tokens"),
        ({"tokenizer": "bert"}, "must be a function"),
    ],
)
def test_bad_arguments_are_errors(arguments, why):
    with pytest.raises(InputError, match=r"^SentenceChunker: ") as caught:
        SentenceChunker(**arguments)
    assert why in str(caught.value)


@pytest.mark.parametrize("result", [None, "3", -1, [1, 2], True])
def test_a_tokenizer_that_returns_no_number_is_an_error(result):
    with pytest.raises(InputError, match="number of tokens"):
        SentenceChunker(tokenizer=lambda _: result).chunk(Document("d", "Text."))


def test_identity_and_configuration():
    assert SentenceChunker().identity == "SentenceChunker(max_tokens=200, overlap=1)"
    assert SentenceChunker(100, 0).identity == "SentenceChunker(max_tokens=100, overlap=0)"
    assert SentenceChunker(tokenizer=words).identity.endswith(", tokenizer=tests.retrievers.chunkers.test_sentence.words)")
    assert configuration(SentenceChunker(100)) == {"max_tokens": 100}
    assert registered("SentenceChunker") is SentenceChunker


def test_a_tokenizer_with_an_identity_is_known_by_it():
    class Counter:
        identity = "minilm/1"

        def __call__(self, text: str) -> int:
            return len(text)

    assert SentenceChunker(tokenizer=Counter()).identity == "SentenceChunker(max_tokens=200, overlap=1, tokenizer=minilm/1)"
