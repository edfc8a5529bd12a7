from __future__ import annotations

import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.core.errors import InputError, MissingDependency
from rag.core.registry import configuration, registered
from retrievers import analyzers
from retrievers.analyzers import Analyzer

AUTO = Analyzer()


def terms(text: str, analyzer: Analyzer = AUTO) -> list[str]:
    return analyzer.tokens([text])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The running DOGS ran", ["the", "run", "dog", "ran"]),
        ("snake_case COVID-19", ["snake_cas", "covid", "19"]),
        ("don't", ["don", "t"]),
        ("ＦＵＬＬ ｗｉｄｔｈ", ["full", "width"]),
        ("ﬁne Straße", ["fine", "strass"]),
        ("机器学习", ["机", "器", "学", "习", "机器", "器学", "学习"]),
        ("用BERT模型", ["用", "bert", "模", "型", "模型"]),
        ("一", ["一"]),
        ("한국어", ["한", "국", "어", "한국", "국어"]),
        ("ひらカタ", ["ひ", "ら", "カ", "タ", "ひら", "らカ", "カタ"]),
        ("русские книги", ["русск", "книг"]),
        ("", []),
        ("!!! … 。，", []),
        ("x" * 500, ["x" * 128]),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_words_with_vowel_signs_stay_whole() -> None:
    assert len(terms("हिन्दी भाषा")) == 2
    assert terms("café") == terms("cafe\u0301")


def test_one_language_for_all_words() -> None:
    german = Analyzer("german")
    assert terms("Häuser", german) == terms("Haus", german) == ["haus"]
    assert terms("Running", Analyzer("none")) == ["running"]


def test_stopwords_are_dropped_wherever_they_stand() -> None:
    analyzer = Analyzer(stopwords=True)
    assert terms("the cat is on a mat", analyzer) == ["cat", "mat"]
    assert terms("The 猫 is here now", analyzer) == ["猫"]


def test_chinese_words_by_dictionary() -> None:
    pytest.importorskip("rjieba")
    found = terms("我来到北京清华大学 tests", Analyzer(chinese="words"))
    assert {"北京", "大学", "test"} <= set(found)


def test_a_missing_dictionary_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rjieba", None)
    with pytest.raises(MissingDependency, match="pip install rjieba"):
        Analyzer(chinese="words")


def test_identity_names_every_setting() -> None:
    made = [Analyzer(), Analyzer("german"), Analyzer("none"), Analyzer(stopwords=True)]
    assert len({analyzer.identity for analyzer in made}) == len(made)
    assert Analyzer().identity == AUTO.identity


def test_bad_settings() -> None:
    with pytest.raises(InputError, match=r"no stemmer for 'klingon'; allowed are: auto, none, .*english"):
        Analyzer("klingon")
    with pytest.raises(InputError, match="'bigrams' or 'words'"):
        Analyzer(chinese="letters")  # type: ignore[arg-type]


def test_configuration_reads_back() -> None:
    assert registered("Analyzer") is Analyzer
    assert configuration(Analyzer("german", stopwords=True)) == {"language": "german", "stopwords": True}


@given(st.text())
def test_any_text_gives_storable_terms_that_do_not_depend_on_the_normal_form(text: str) -> None:
    found = terms(text)
    assert all(term and "\n" not in term and not term.isspace() for term in found)
    assert terms(unicodedata.normalize("NFD", text)) == terms(unicodedata.normalize("NFC", text))


@given(st.text("abc déÀ机学", max_size=30))
def test_ascii_words_are_cut_alike_in_any_company(text: str) -> None:
    assert terms("plain words " + text)[:2] == ["plain", "word"]


def test_threads_share_one_analyzer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyzers, "_CACHE", 50)
    analyzer = Analyzer()
    texts = [f"running{i} jumped{i} houses{i % 60}" for i in range(400)]
    expected = AUTO.tokens(texts)
    found: list[list[list[str]]] = []
    threads = [threading.Thread(target=lambda: found.append(analyzer.tokens(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
