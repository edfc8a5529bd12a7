"""From text to the terms that BM25 counts.

Text is normalised (NFKC, case folded) and cut by script: words of spaced scripts are stemmed, runs of scripts without spaces (Chinese,
Japanese, Korean, Thai, Lao, Burmese, Khmer) become their characters and pairs of neighbours, which needs no dictionary and finds any
substring (Nie & Ren 1999, "Chinese information retrieval: using characters or words?").
"""

from __future__ import annotations

import itertools
import re
import threading
import unicodedata
from collections.abc import Callable
from typing import Literal

from rag.core.errors import InputError, MissingDependency
from rag.core.registry import component

_BY_SCRIPT = {"LATIN": "english", "CYRILLIC": "russian", "GREEK": "greek", "ARABIC": "arabic", "DEVANAGARI": "hindi", "TAMIL": "tamil"}
"""Stemmer per script for ``language="auto"``; a word of any other script stays as it is."""

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
)
_UNSPACED += "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
# Vowel signs and accents are no \w for Python, but they do not end a word.
_MARKS = "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_TOKEN = re.compile(f"(?P<run>[{_UNSPACED}]+)|(?:(?![{_UNSPACED}])[\\w{_MARKS}])+")
_ASCII = re.compile(r"[a-z0-9_]+")
_MAX_TOKEN = 128
"""Characters; a longer word (an encoded blob) is cut, so that it cannot swell the vocabulary."""
_CACHE = 500_000

_STOPWORDS = """
    a about above after again against all am an and any are as at be because been before being below between both but by can could did do
    does doing down during each few for from further had has have having he her here hers herself him himself his how i if in into is it
    its itself just me more most my myself no nor not now of off on once only or other our ours ourselves out over own same she should so
    some such than that the their theirs them themselves then there these they this those through to too under until up very was we were
    what when where which while who whom why will with would you your yours yourself yourselves
"""


class _Stems(dict[str, str]):
    """Word to term ("" drops it), filled on demand. A dict with ``__missing__`` keeps the lookup of a known word in C."""

    def __init__(self, stem: Callable[[str], str]) -> None:
        super().__init__()
        self._stem = stem
        self._lock = threading.Lock()  # Snowball stemmers keep state between calls

    def __missing__(self, word: str) -> str:
        with self._lock:
            if len(self) >= _CACHE:
                self.clear()
            term = self._stem(word[:_MAX_TOKEN])
            self[word] = term
        return term


@component
class Analyzer:
    """Cuts texts into terms; documents and queries must go through an analyzer of one ``identity``.

    ``language``: "auto" takes the stemmer from a word's script (Latin: English), a Snowball name such as "german" uses that one for all
    words, "none" does not stem. ``stopwords`` drops English function words. ``chinese="words"`` cuts Chinese with the jieba dictionary
    (package ``rjieba``) instead of characters and pairs.
    """

    def __init__(self, language: str = "auto", stopwords: bool = False, chinese: Literal["bigrams", "words"] = "bigrams") -> None:
        if chinese not in ("bigrams", "words"):
            raise InputError(f"chinese must be 'bigrams' or 'words', not {chinese!r}")
        self.language = language
        self.stopwords = stopwords
        self.chinese = chinese
        self._stemmers = _load_stemmers(language)
        self._dropped = frozenset(_STOPWORDS.split() if stopwords else ())
        self._stems = _Stems(self._term)
        self._cut = _jieba() if chinese == "words" else None

    @property
    def identity(self) -> str:
        """Two analyzers of one identity make the same terms."""
        return f"graft/1 language={self.language} stopwords={int(self.stopwords)} chinese={self.chinese}"

    def tokens(self, texts: list[str]) -> list[list[str]]:
        """The terms of each text, in order, repetitions included."""
        return [self._tokens(text) for text in texts]

    def _tokens(self, text: str) -> list[str]:
        stem = self._stems.__getitem__
        if text.isascii():
            terms = list(map(stem, _ASCII.findall(text.lower())))
        else:
            terms = self._mixed(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()))
        return [term for term in terms if term] if self.stopwords else terms

    def _mixed(self, text: str) -> list[str]:
        terms: list[str] = []
        for match in _TOKEN.finditer(text):
            token = match.group()
            if match.lastgroup is None:
                terms.append(self._stems[token])
            elif self._cut is not None:
                terms.extend(self._cut(token))
            else:
                terms.extend(token)
                terms.extend(map("".join, itertools.pairwise(token)))
        return terms

    def _term(self, word: str) -> str:
        if word in self._dropped:
            return ""
        stemmer = self._stemmers.get(_script(word)) or self._stemmers.get("")
        return stemmer(word) or word if stemmer else word


def _script(word: str) -> str:
    return "LATIN" if word[0].isascii() else unicodedata.name(word[0], "?").split(" ")[0]


def _load_stemmers(language: str) -> dict[str, Callable[[str], str]]:
    import Stemmer

    allowed = Stemmer.algorithms()
    if language == "none":
        return {}
    if language == "auto":
        return {script: Stemmer.Stemmer(name, 0).stemWord for script, name in _BY_SCRIPT.items() if name in allowed}
    if language not in allowed:
        raise InputError(f"there is no stemmer for {language!r}; allowed are: auto, none, {', '.join(allowed)}")
    return {"": Stemmer.Stemmer(language, 0).stemWord}


def _jieba() -> Callable[[str], list[str]]:
    try:
        import rjieba
    except ImportError as error:
        raise MissingDependency(
            "Analyzer(chinese='words') needs the package rjieba: pip install rjieba (or use chinese='bigrams')"
        ) from error
    cut: Callable[[str], list[str]] = rjieba.cut_for_search if hasattr(rjieba, "cut_for_search") else rjieba.cut
    return cut
