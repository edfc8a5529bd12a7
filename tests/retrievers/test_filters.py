from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.core.errors import InputError
from rag.core.types import Passage
from retrievers.corpus import Corpus
from retrievers.filters import MAX_KEY, MAX_VALUES, OPERATORS, key_of, matches, parse, to_sql
from tests.retrievers.stubs import LineChunker

NASTY = [
    "lang",
    "a.b",
    "a'b",
    'a"b',
    "$",
    "$.x",
    "[0]",
    "x' OR '1'='1",
    "'); DROP TABLE passages; --",
    "%",
    "\\",
    "\\u0041",
    "A",
    "é",
    "机",
    "\n",
    " ",
    "?1",
    ":a",
]


def found(corpus: Corpus, filter: dict[str, Any]) -> set[str]:
    rowids = corpus.store.select(*to_sql(filter))
    return {passage.id for passage in corpus.passages(rowids.tolist())}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    made = Corpus.create(tmp_path_factory.mktemp("filters") / "c", encoder=None, chunker=LineChunker())
    rows: dict[str, dict[str, Any]] = {
        "a": {"lang": "en", "year": 2020, "team": "ops", "draft": True},
        "b": {"lang": "de", "year": 2024, "team": "hr", "draft": False},
        "c": {"lang": "en", "year": 2022.5, "team": None},
        "d": {"year": "2023", "draft": 1},
        "e": {},
    }
    made.add_passages(Passage(id, "text", metadata=metadata) for id, metadata in rows.items())
    made.add_passages(Passage(f"key{i}", "text", metadata={key: "there"}) for i, key in enumerate(NASTY))
    made.add_passages([Passage("p1", "x", "guide/%one"), Passage("p2", "x", "guide/two"), Passage("p3", "x", "guidebook")])
    return made


KEYS = {f"key{i}" for i in range(len(NASTY))} - {"key0"} | {"p1", "p2", "p3"}


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"lang": "en"}, "ac"),
        ({"lang": {"eq": "en"}}, "ac"),
        ({"lang": ["en", "de"]}, "abc"),
        ({"lang": {"ne": "en"}}, "bde*"),
        ({"lang": {"nin": ["en", "de"]}}, "de*"),
        ({"year": {"gte": 2020, "lt": 2024}}, "ac"),
        ({"year": {"gt": 2020}}, "bc"),
        ({"year": {"lte": 2022.5}}, "ac"),
        ({"year": 2020.0}, "a"),
        ({"year": {"gte": "2000"}}, "d"),
        ({"draft": True}, "a"),
        ({"draft": 1}, "d"),
        ({"draft": {"ne": True}}, "bcde*"),
        ({"draft": {"exists": True}}, "abd"),
        ({"draft": {"exists": False}}, "ce*"),
        ({"team": None}, "c"),
        ({"team": {"exists": True}}, "abc"),
        ({"team": {"ne": None}}, "abde*"),
        ({"team": [None, "hr", True, 3]}, "bc"),
        ({"lang": "en", "year": 2020}, "a"),
        ({"nothing": "x"}, ""),
    ],
)
def test_each_operator(corpus: Corpus, filter: dict[str, Any], expected: str) -> None:
    ids = set(expected.replace("*", ""))
    if "*" in expected:
        ids |= KEYS
    assert found(corpus, filter) - {"key0"} == ids
    for passage in corpus.each_passage():
        if passage.id != "key0":
            assert matches(filter, passage.metadata, passage.document) == (passage.id in ids)


@pytest.mark.parametrize("key", NASTY)
def test_any_string_is_safe_as_a_key_and_as_a_value(corpus: Corpus, key: str) -> None:
    assert found(corpus, {key: "there"}) == {f"key{NASTY.index(key)}"}
    assert found(corpus, {"lang": key}) == set()
    assert found(corpus, {key: {"exists": True}, "lang": {"ne": "en"}}) >= {f"key{NASTY.index(key)}"}
    sql, values = to_sql({key: "there"})
    assert key in values
    if len(key) > 2 and key != "lang":
        assert key not in sql


def test_the_document_key(corpus: Corpus) -> None:
    assert found(corpus, {"document": "guide/two"}) == {"p2"}
    assert found(corpus, {"document": ["guide/two", "a"]}) == {"p2", "a"}
    assert found(corpus, {"document": {"prefix": "guide/"}}) == {"p1", "p2"}
    assert found(corpus, {"document": {"prefix": "guide/%"}}) == {"p1"}
    everything = {passage.id for passage in corpus.each_passage()}
    assert found(corpus, {"document": {"ne": "a"}}) == everything - {"a"}
    assert found(corpus, {"document": {"nin": ["a", "guidebook"]}}) == everything - {"a", "p3"}
    assert matches({"document": {"prefix": "guide/"}}, {}, "guide/two")
    assert not matches({"document": {"prefix": "guide/"}}, {}, "guidebook")


KEY = st.sampled_from(["k", "l", "a'\"b", "é.$"])
TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=3)
NUMBER = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -1.5, 1.0, -0.0, 1e300, 2**53, 2**53 + 1, -(2**63), 0.1 + 0.2]))
SCALAR = st.one_of(st.none(), st.booleans(), NUMBER, TEXT)
METADATA = st.dictionaries(KEY, SCALAR, max_size=3)
TEST = st.one_of(
    SCALAR,
    st.lists(SCALAR, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["eq", "ne"]), SCALAR, min_size=1),
    st.dictionaries(st.sampled_from(["in", "nin"]), st.lists(SCALAR, min_size=1, max_size=3), min_size=1),
    st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), st.one_of(NUMBER, TEXT), min_size=1),
    st.builds(lambda flag: {"exists": flag}, st.booleans()),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.create(tmp_path_factory.mktemp("scratch") / "c", encoder=None, chunker=LineChunker())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(METADATA, min_size=1, max_size=12),
    filters=st.lists(st.dictionaries(KEY, TEST, min_size=1, max_size=2), min_size=1, max_size=12),
)
def test_sql_and_python_agree(scratch: Corpus, rows: list[dict[str, Any]], filters: list[dict[str, Any]]) -> None:
    scratch.delete([record.id for record in scratch.documents()])
    scratch.add_passages(Passage(f"p{i}", "text", metadata=metadata) for i, metadata in enumerate(rows))
    for filter in filters:
        assert found(scratch, filter) == {f"p{i}" for i, metadata in enumerate(rows) if matches(filter, metadata)}, filter


@pytest.mark.parametrize(
    ("filter", "message"),
    [
        ("lang=en", "a filter is a mapping"),
        ({"lang": {"like": "e%"}}, ", ".join(OPERATORS)),
        ({"lang": {}}, "no operator given"),
        ({"lang": {5: "x"}}, "no operator '5'"),
        ({5: "x"}, "metadata key is a string"),
        ({"": "x"}, "metadata key is a string"),
        ({"x" * (MAX_KEY + 1): 1}, f"1 to {MAX_KEY}"),
        ({"a\0": 1}, "NUL"),
        ({"a": "\0"}, "NUL"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": []}, f"1 to {MAX_VALUES}"),
        ({"a": list(range(MAX_VALUES + 1))}, f"1 to {MAX_VALUES}"),
        ({"a": {"in": "abc"}}, "takes a list"),
        ({"a": {"gt": None}}, "compares numbers or strings"),
        ({"a": {"lt": True}}, "compares numbers or strings"),
        ({"a": {"exists": 1}}, "True or False"),
        ({"a": {"exists": "yes"}}, "True or False"),
        ({"a": math.nan}, "finite"),
        ({"a": math.inf}, "finite"),
        ({"a": 2**63}, "64 bits"),
        ({"a": [[1]]}, "list is not allowed"),
        ({"a": {"eq": {"b": 1}}}, "dict is not allowed"),
        ({"a": {"prefix": "x"}}, "no operator 'prefix'"),
        ({"document": {"gt": "a"}}, "eq, ne, in, nin, prefix"),
        ({"document": 5}, "id is a string"),
    ],
)
def test_what_is_no_filter_is_refused(filter: Any, message: str) -> None:
    for use in (parse, to_sql, lambda f: matches(f, {}), key_of):
        with pytest.raises(InputError, match=message):
            use(filter)


def test_keys_of_filters() -> None:
    assert key_of(None) == key_of({}) == ""
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert len({key_of({"a": 1}), key_of({"a": "1"}), key_of({"a": True}), key_of({"a": [1, 2]}), key_of({"a": {"ne": 1}})}) == 5


def test_a_search_with_a_bad_filter_is_refused(tmp_path: Path, corpus: Corpus) -> None:
    from retrievers.bm25 import BM25

    with pytest.raises(InputError, match="allowed are"):
        BM25(corpus).search("text", filter={"lang": {"like": "x"}})
