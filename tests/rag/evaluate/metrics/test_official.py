"""Exact match and F1 equal the definitions of the scripts of SQuAD and CMRC 2018, on pairs made to tell implementations apart.

The expected values come twice: worked out by hand for the pairs below, and for all 500 by a plain transcription of the published rules,
written for this file in another way than the implementation (no shared code, quadratic and slow).
"""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from rag.evaluate.metrics import cmrc, metric
from rag.evaluate.types import Outcome, Question

SQUAD_BY_HAND: list[tuple[str, list[str], float, float]] = [
    ("The Denver Broncos", ["Denver Broncos"], 1, 1),
    ("denver broncos", ["Denver Broncos"], 1, 1),
    ("Denver Broncos!", ["Denver Broncos"], 1, 1),
    ("Broncos", ["Denver Broncos"], 0, 2 / 3),
    ("well-known", ["well known"], 0, 0),
    ("well-known", ["wellknown"], 1, 1),
    ("a an the", ["x"], 0, 0),
    ("", ["x"], 0, 0),
    ("x", [], 0, 0),
    ("", [], 1, 1),
    ("The", [], 1, 1),
    ("__an__", [], 1, 1),
    ("Anthem", ["them"], 0, 0),
    ("7 a.m.", ["7 am"], 1, 1),
    ("theatre a", ["theatre"], 1, 1),
    ("A-Team", ["ateam"], 1, 1),
    ("A Team", ["Team"], 1, 1),
    ("the the cat", ["cat"], 1, 1),
    ("cat cat", ["cat"], 0, 2 / 3),
    ("cat cat dog", ["cat dog dog"], 0, 2 / 3),
    ("U.S.", ["US"], 1, 1),
    ("$5 million", ["5 million"], 1, 1),
    ("5,000", ["5000"], 1, 1),
    ("3.5", ["35"], 1, 1),
    ("José", ["Jose"], 0, 0),
    ("José", ["JOSÉ"], 1, 1),
    ("caf\u00e9", ["cafe\u0301"], 0, 0),
    ("“Paris”", ["Paris"], 0, 0),
    ('"Paris"', ["Paris"], 1, 1),
    ("the – end", ["end"], 0, 2 / 3),
    ("Paris\u00a0France", ["Paris France"], 1, 1),
    ("Paris\t France\n", ["Paris France"], 1, 1),
    ("１２", ["12"], 0, 0),
    ("Santa Clara", ["Levi's Stadium", "Santa Clara, California", "the Santa Clara"], 1, 1),
    ("Levis stadium in Santa Clara", ["Levi's Stadium", "Santa Clara"], 0, 4 / 7),
    ("cat", ["The", "cat"], 1, 1),
    ("the", ["The", "cat"], 0, 0),
    ("a", ["The"], 1, 1),
    ("İstanbul", ["istanbul"], 0, 0),
    ("STRASSE", ["Straße"], 0, 0),
    ("an apple a day", ["apple day"], 1, 1),
    ("don't", ["dont"], 1, 1),
    ("it's a wonderful life", ["wonderful life"], 0, 4 / 5),
    ("the’s", ["’s"], 1, 1),
    ("1 2 3 4", ["4 3 2 1"], 0, 1),
    ("a\u0301", ["\u0301"], 1, 1),
    ("New York, NY", ["New York"], 0, 4 / 5),
]

CMRC_BY_HAND: list[tuple[str, list[str], float, float]] = [
    ("北京", ["北京"], 1, 1),
    ("北京。", ["北京"], 1, 1),
    ("北京市", ["北京"], 0, 4 / 5),
    ("北方京城", ["北京"], 0, 1 / 3),  # the common run is contiguous: one character, not two
    ("《红楼梦》", ["红楼梦"], 1, 1),
    ("iPhone手机", ["iphone手机"], 1, 1),
    ("Apple 公司", ["apple公司"], 0, 1),
    ("2008年", ["2008"], 0, 2 / 3),
    ("２００８年", ["2008年"], 0, 1 / 2),
    ("", [""], 1, 0),
    ("", ["北京"], 0, 0),
    ("，。！", [""], 1, 0),
    ("北京", ["上海", "北京"], 1, 1),
    ("well-known 作家", ["wellknown 作家"], 1, 1),
    ("3.14，", ["3.14"], 1, 1),
    ("1,000 人", ["1000人"], 0, 1 / 2),
    ("约翰·史密斯", ["约翰史密斯"], 1, 1),
    ("‘北京’", ["北京"], 0, 4 / 5),  # the closing quote is listed, the opening one is not
    ("……北京", ["北京"], 0, 4 / 5),
    ("don't 不", ["不"], 0, 1 / 2),
    ("(北京)", ["北京"], 0, 2 / 3),
    ("（北京）", ["北京"], 1, 1),
    ("㐀", ["㐀"], 1, 1),
    ("北 京", ["北京"], 0, 1),
    ("50%", ["50"], 0, 2 / 3),
    ("GDP增长7.5%。", ["7.5%"], 0, 4 / 7),
    ("“是”", ["是"], 1, 1),
    ("北京 。", ["北京"], 0, 1),
    ("C++语言", ["c语言"], 1, 1),
    ("the 北京", ["北京"], 0, 4 / 5),
    ("1=1\\_^*/对", ["1~1`对"], 1, 1),
]


def _score(name: str, prediction: str, references: list[str], language: str) -> float | None:
    """``squad2_…`` is the script of version 2.0: without references the question is unanswerable."""
    question = Question("q", "?", tuple(references), answerable=bool(references), metadata={"language": language})
    return metric(name).score(question, Outcome("q", prediction))


@pytest.mark.parametrize(("prediction", "references", "em", "f1"), SQUAD_BY_HAND)
def test_squad_by_hand(prediction: str, references: list[str], em: float, f1: float) -> None:
    assert _score("squad2_exact_match", prediction, references, "en") == em
    assert _score("squad2_f1", prediction, references, "en") == pytest.approx(f1, abs=1e-12)
    if references:
        assert _score("exact_match", prediction, references, "en") == em
        assert _score("f1", prediction, references, "en") == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize(("prediction", "references", "em", "f1"), CMRC_BY_HAND)
def test_cmrc_by_hand(prediction: str, references: list[str], em: float, f1: float) -> None:
    assert _score("exact_match", prediction, references, "zh") == em
    assert _score("f1", prediction, references, "zh") == pytest.approx(f1, abs=1e-12)


# --- SQuAD's rules, character by character -------------------------------------------------------------------------------------------


def _squad_words(text: str) -> list[str]:
    """Lower case; no ASCII punctuation; no article that stands between non-word characters; split at white space."""
    kept = "".join(c for c in text.lower() if not ("!" <= c <= "/" or ":" <= c <= "@" or "[" <= c <= "`" or "{" <= c <= "~"))
    runs: list[str] = []
    for c in kept:
        wordlike = c.isalnum() or c == "_"
        if runs and wordlike == (runs[-1][-1].isalnum() or runs[-1][-1] == "_"):
            runs[-1] += c
        else:
            runs.append(c)
    return "".join(" " if run in ("a", "an", "the") else run for run in runs).split()


def _squad_expected(prediction: str, references: list[str]) -> tuple[float, float]:
    golds = [words for words in map(_squad_words, references) if words] or [[]]
    said = _squad_words(prediction)
    best = 0.0
    for gold in golds:
        left, same = list(gold), 0
        for word in said:
            if word in left:
                left.remove(word)
                same += 1
        if not said or not gold:
            best = max(best, float(said == gold))
        elif same:
            precision, recall = same / len(said), same / len(gold)
            best = max(best, 2 * precision * recall / (precision + recall))
    return float(any(" ".join(said) == " ".join(gold) for gold in golds)), best


def _squad_1_expected(prediction: str, references: list[str]) -> tuple[float, float]:
    """Version 1.1: references of which nothing is left are kept, and share nothing."""
    said = _squad_words(prediction)
    found = []
    for gold in map(_squad_words, references):
        same = (Counter(said) & Counter(gold)).total()
        found.append(2 * (same / len(said)) * (same / len(gold)) / (same / len(said) + same / len(gold)) if same else 0.0)
    return float(any(said == gold for gold in map(_squad_words, references))), max(found)


# --- CMRC's rules, with all of the word tokenizer's ------------------------------------------------------------------------------------

_LISTED = ["-", ":", "_", "*", "^", "/", "\\", "~", "`", "+", "=", "，", "。", "：", "？", "！", "“", "”", "；", "’", "《", "》", "……"]
_LISTED += ["·", "、", "「", "」", "（", "）", "－", "～", "『", "』"]

_TREEBANK = [
    ("([«“‘„]|[`]+)", r" \1 "),
    ('^"', "``"),
    ("(``)", r" \1 "),
    (r"""([ \(\[{<])("|'{2})""", r"\1 `` "),
    (r"(?i)(?<!\w)(')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", r"\1 "),
    (r"""([^\.])(\.)([\]\)}>"'»”’ ]*)\s*$""", r"\1 \2 \3 "),
    (r"([:,])([^\d])", r" \1 \2"),
    (r"([:,])$", r" \1 "),
    (r"\.{2,}", r" \g<0> "),
    (r"[;@#$%&]", r" \g<0> "),
    (r"[\u2012-\u2015]", r" \g<0> "),
    (r"""([^\.])(\.)([\]\)}>"']*)\s*$""", r"\1 \2\3 "),
    (r"[?!]", r" \g<0> "),
    (r"([^'])' ", r"\1 ' "),
    (r"[*]", r" \g<0> "),
    (r"[\]\[\(\)\{\}\<\>]", r" \g<0> "),
    (r"--", r" -- "),
    (r"\A", " "),
    (r"\Z", " "),
    ("([»”’])", r" \1 "),
    ("''", " '' "),
    ('"', " '' "),
    (r"\s+", " "),
    (r"([^' ])('[sS]|'[mM]|'[dD]|') ", r"\1 \2 "),
    (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 "),
    *[
        (rf"(?i)\b({first})({second})\b", r" \1 \2 ")
        for first, second in [("can", "not"), ("d", "'ye"), ("gim", "me"), ("gon", "na"), ("got", "ta"), ("lem", "me"), ("more", "'n")]
    ],
    (r"(?i)\b(wan)(na)(?=\s)", r" \1 \2 "),
    (r"(?i) ('t)(is)\b", r" \1 \2 "),
    (r"(?i) ('t)(was)\b", r" \1 \2 "),
]


def _treebank(text: str) -> list[str]:
    for pattern, spaced in _TREEBANK:
        text = re.sub(pattern, spaced, text)
    return text.split()


def _cmrc_segments(text: str) -> list[str]:
    out: list[str] = []
    run = ""
    for c in text.lower().strip():
        if c in _LISTED:
            continue
        if "\u4e00" <= c <= "\u9fa5":
            out.extend(_treebank(run))
            out.append(c)
            run = ""
        else:
            run += c
    return out + _treebank(run)


def _cmrc_expected(prediction: str, references: list[str]) -> tuple[float, float]:
    said, best, em = _cmrc_segments(prediction), 0.0, 0.0
    for reference in references:
        gold = _cmrc_segments(reference)
        runs = {tuple(gold[i:j]) for i in range(len(gold)) for j in range(i + 1, len(gold) + 1)}
        common = max((j - i for i in range(len(said)) for j in range(i + 1, len(said) + 1) if tuple(said[i:j]) in runs), default=0)
        if common:
            precision, recall = common / len(said), common / len(gold)
            best = max(best, 2 * precision * recall / (precision + recall))
        bare = ["".join(c for c in side.lower().strip() if c not in _LISTED) for side in (prediction, reference)]
        em = max(em, float(bare[0] == bare[1]))
    return em, best


# --- 500 pairs -----------------------------------------------------------------------------------------------------------------------

_LATIN = """
    The a AN the an cat Cat's cats' New York U.S. e.g. well-known 3.14 1,000 $5 50% №7 don't cannot gonna 'tis rock'n'roll naïve nai\u0308ve
    Straße STRASSE İstanbul ǅ Ωmega — – … ... ? ! ; "quoted" 'single' “curly” ‘low’ „x“ «y» (z) [1] {k} <t> a_b __the__ a-the A. a,b x:y
    C++ AT&T #1 @home １２ Ⅳ ² more'n wanna can't they'll '' `` it's x. y.) z." -- theatre anthem \u200b
"""
_HAN = """
    北京 上海市 的 《红楼梦》 ， 。 ！ ？ …… … 、 · 「是」 『书』 （注） (注) － ～ “引” ‘引’ ； ： ２００８年 2008年
    第3届 一 㐀 龥 龦 〇 ｶﾅ かな 台灣 ％
"""
_LATIN_PIECES = [*_LATIN.split(), "\u00a0", "\t", "\n"]
_HAN_PIECES = _HAN.split()


def _pairs(pieces: list[str], count: int, seed: int) -> list[tuple[str, list[str]]]:
    """References made of ``pieces``, and predictions that are variations of one of them."""
    rng = random.Random(seed)
    found: list[tuple[str, list[str]]] = []
    for _ in range(count):
        references = [_joined(rng.choices(pieces, k=rng.randint(0, 5)), rng) for _ in range(rng.randint(1, 3))]
        words = [word for word in re.split(r"( )", rng.choice(references)) if word]
        for _ in range(rng.randint(0, 3)):
            place = rng.randint(0, len(words))
            change = rng.choice(["insert", "drop", "repeat", "case", "swap"])
            if change == "insert":
                words[place:place] = [rng.choice(["", " "]), rng.choice(pieces), rng.choice(["", " "])]
            elif change == "drop":
                del words[place : place + 1]
            elif change == "repeat":
                words[place:place] = words[place : place + 2]
            elif change == "case":
                words = [word.swapcase() for word in words]
            else:
                words = words[place:] + words[:place]
        found.append(("".join(words), references))
    return found


def _joined(pieces: list[str], rng: random.Random) -> str:
    return "".join(piece + rng.choice(["", " ", " "]) for piece in pieces)


SQUAD_PAIRS = [(p, r) for p, r, _, _ in SQUAD_BY_HAND] + _pairs(_LATIN_PIECES, 253, seed=1)
CMRC_PAIRS = [(p, r) for p, r, _, _ in CMRC_BY_HAND] + _pairs(_HAN_PIECES * 2 + _LATIN_PIECES, 169, seed=2)


def test_500_pairs_equal_the_published_rules() -> None:
    assert len(SQUAD_PAIRS) + len(CMRC_PAIRS) == 500
    wrong = []
    partial = exact = 0
    for language, pairs, expected in (("en", SQUAD_PAIRS, _squad_expected), ("zh", CMRC_PAIRS, _cmrc_expected)):
        for prediction, references in pairs:
            em, f1 = expected(prediction, references)
            names = ("squad2_exact_match", "squad2_f1") if language == "en" else ("exact_match", "f1")
            found = tuple(_score(name, prediction, references, language) for name in names)
            partial += 0 < f1 < 1
            exact += em == 1
            if found != (em, pytest.approx(f1, abs=1e-12)):
                wrong.append((prediction, references, found, (em, f1)))
    assert not wrong
    assert partial > 100  # the pairs are neither all right nor all wrong
    assert 50 < exact < 350


def test_versions_of_squad_differ_only_where_nothing_is_left_of_a_reference() -> None:
    compared = 0
    for prediction, references in SQUAD_PAIRS:
        if references and all(map(_squad_words, references)):
            compared += 1
            em, f1 = _squad_1_expected(prediction, references)
            assert _score("exact_match", prediction, references, "en") == em
            assert _score("f1", prediction, references, "en") == pytest.approx(f1, abs=1e-12)
    assert compared > 150


def test_words_between_han_characters_by_all_rules_of_the_tokenizer() -> None:
    """The implementation leaves out rules that cannot apply; 3,000 random runs show that none of them could."""
    rng = random.Random(3)
    alphabet = [*"ab1 .,'\"()[]{}<>?!;@#$%&…—«»‘„\n\té", "n't", "'s ", "cannot ", "'tis ", "wanna ", "..", "''", "gotta", "more'n"]
    for _ in range(3000):
        run = "".join(rng.choices(alphabet, k=rng.randint(1, 12)))
        assert cmrc.words(run) == _treebank(run), run
