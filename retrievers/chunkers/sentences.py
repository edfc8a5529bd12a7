"""Where sentences end, in English and Chinese, by character offset.

Rules, not a model: every step is linear in the text, works on any string (unpaired surrogates included) and gives spans that tile it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

_CJK = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uff00-\uffef\u3000-\u303f"
_CLOSERS = r"[\"')\]}”’」』）》〉】]*+(?:\[\w[\w ,]{0,30}\])*+"  # then note marks: "ended.[12]", "ended.[citation needed]"

# A run of stops is tried once, at its first character: without the look-behind "....." would cost quadratic time.
_CJK_END = re.compile(rf"(?<![。！？｡…])(?:[。！？｡][。！？!?｡…]*+|……++|(?<=[{_CJK}])(?:[!?](?=\w)|\.(?=[{_CJK}]))){_CLOSERS}\s*+")
_LATIN_END = re.compile(rf"(?<![.!?…।؟۔])([.!?…।؟۔]++){_CLOSERS}(?:\s++|\Z)")
_PARAGRAPH = re.compile(r"\n[^\S\n]*+\n\s*+")
_WORD_BEFORE = re.compile(r"[\w.&]+\Z")
_LETTERS = re.compile(r"[^\W\d_]+")
_OPENERS = "\"'“‘([{«「『（《*_"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER_LAST = _words("""
    dr mr mrs ms mx prof st mt ft gen col lt sgt capt cmdr adm gov sen rep rev hon pres c v e.g i.e cf vs viz fig figs eq eqs sec ch vol
    pp art ca approx
""")
_MAYBE_LAST = _words("""
    jr sr inc ltd co corp llc bros etc al a.m p.m ph.d b.a m.a jan feb mar apr jun jul aug sep sept oct nov dec ave blvd rd dept est ed eds
""")
_STARTERS = _words("""
    the a an he she it they we i you this that these those there his her its their our my your in on at as after before when while where
    what who why how if but and or so yet however although though since because for from with by to some most many all both each no not
    one two then also another such during until under over even only let please see
""")

_NEW_LINE_ITEM = re.compile(
    r"\s*(?:[-*+•·▪●‣]\s|\(?\d{1,3}[.)、]\s?|[(（]\w{1,3}[)）]|[|>#]|```|~~~|[一二三四五六七八九十]{1,3}、|[^\W\d_][\w \-/]{0,30}[:：]\s)"
)
_FIRST_WORD = re.compile(rf"\s*+([{_CJK}]|[^\s{_CJK}]+)")
_HAS_CJK = re.compile(f"[{_CJK}]")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of every sentence; the spans tile ``text`` and white space belongs to the sentence before it.

    A blank line always ends a sentence; a single line break does unless the lines look wrapped. An empty text has no sentence.
    """
    if not text:
        return []
    first = len(text) - len(text.lstrip())
    cuts = {m.end() for m in _CJK_END.finditer(text)}
    cuts.update(m.end() for m in _LATIN_END.finditer(text) if _ends_sentence(text, m))
    cuts.update(_line_cuts(text))
    bounds = [0, *sorted(c for c in cuts if first < c < len(text)), len(text)]
    return list(pairwise(bounds))


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    """Whether a stop followed by white space ends a sentence, judged by the words on both sides."""
    following = text[stop.end() : stop.end() + 24].lstrip(_OPENERS)
    if following[:1].islower():
        return False  # '"Is it true?" she asked', 'e.g. a house'
    if stop.group(1) != ".":
        return True
    word = _WORD_BEFORE.search(text, max(0, stop.start() - 24), stop.start())
    if word is None:
        return not (following.startswith(".") or text[max(0, stop.start() - 2) : stop.start()] == ". ")  # a spaced ellipsis ". . ."
    before = word.group()
    name = before.lower().strip(".")
    if name in _NEVER_LAST and before not in ("C", "V"):
        return False
    if name in ("no", "nos", "p", "para", "§"):
        return not following[:1].isdigit()
    if before.isdigit() and len(before) <= 3:
        left = text[max(0, word.start() - 9) : word.start()]
        opens_line = "\n" in left or len(left) < 9
        return not opens_line or bool(left.rpartition("\n")[2].strip())  # "1. Item" opens a list item
    initial = len(name) == 1 and name.isalpha() and before[0].isupper()
    acronym = "." in name and all(len(part) == 1 for part in name.split("."))
    if name in _MAYBE_LAST or initial or acronym:
        start = _LETTERS.match(following)
        return not following or (start is not None and start.group().lower() in _STARTERS)
    return True


def _line_cuts(text: str) -> Iterator[int]:
    """Yield the offsets after blank lines and after those single line breaks that no wrapping explains."""
    start = 0
    for gap in _PARAGRAPH.finditer(text):
        yield from _hard_breaks(text, start, gap.start())
        yield gap.end()
        start = gap.end()
    yield from _hard_breaks(text, start, len(text))


def _hard_breaks(text: str, start: int, end: int) -> Iterator[int]:
    """Line breaks of one paragraph that were meant.

    A wrapped line is full: the next word would not have fitted. Where it would (with a quarter of the width to spare, for ragged
    right edges), or where the next line opens a list item, a table row or a "name: value" pair, the break is a boundary.
    """
    breaks = []
    at = text.find("\n", start, end)
    while at != -1:
        breaks.append(at)
        at = text.find("\n", at + 1, end)
    if not breaks:
        return
    edges = [start - 1, *breaks, end]
    width = max(b - a - 1 for a, b in pairwise(edges))
    narrow = width < (20 if _HAS_CJK.search(text, start, end) else 40)  # no prose is wrapped this narrow: a list, a poem, an address
    for previous, at in zip(edges, breaks, strict=False):
        word = _FIRST_WORD.match(text, at + 1, end)
        if word is None:  # only white space is left, which belongs to the sentence before
            return
        room = at - previous + word.end(1) - word.start(1)
        heading_or_row = text[previous + 1 : at].lstrip()[:1] in ("#", "|")
        if narrow or room <= 0.75 * width or heading_or_row or _NEW_LINE_ITEM.match(text, at + 1, end):
            yield word.start(1)
