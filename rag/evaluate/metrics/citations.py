"""Citation precision and recall (after ALCE: Gao et al., EMNLP 2023, section 4), with the validity that the pipeline found.

ALCE judges support by an entailment model; here a citation is valid if the pipeline's own check passed it (`rag.core.types.Citation`).
"""

from __future__ import annotations

import re

from generators.citations import MARKER
from rag.evaluate.metrics.registry import anything, register
from rag.evaluate.metrics.text import refuses
from rag.evaluate.types import Outcome, Question
from retrievers.chunkers.sentences import sentence_spans

_NUMBER = re.compile(r"[0-9]+")


@register("citation_precision", needs="nothing", fits=anything)
def citation_precision(question: Question, outcome: Outcome) -> float | None:
    """The share of the citations that are valid; a number that points to no passage is invalid. Does not apply without citations."""
    valid = _validity(outcome)
    return sum(flag for _, flag in valid) / len(valid) if valid else None


@register("citation_recall", needs="nothing", fits=anything)
def citation_recall(question: Question, outcome: Outcome) -> float | None:
    """The share of the answer's sentences that carry a valid citation. Does not apply to a refusal, which claims nothing.

    Markers after a full stop belong to the sentence before, unless they open a line.
    """
    sentences = _sentences(outcome.answer)
    if refuses(outcome) or not sentences:
        return None
    valid = [place for place, flag in _validity(outcome) if flag]
    return sum(any(start <= place < end for place in valid) for start, end in sentences) / len(sentences)


def _validity(outcome: Outcome) -> list[tuple[int, bool]]:
    """For every number cited in the answer, the place of its marker and whether it is valid.

    ``citations`` holds the numbers in order, except those beyond the passages: so what it lacks are the zeros and the largest numbers.
    """
    cited = [(marker.start(), int(digits)) for marker in MARKER.finditer(outcome.answer) for digits in _NUMBER.findall(marker[1])]
    by_size = sorted(range(len(cited)), key=lambda index: (cited[index][1] > 0, -cited[index][1]))
    pointless = set(by_size[: max(0, len(cited) - len(outcome.citations))])
    flags = iter(valid for _, valid in outcome.citations)
    return [(place, index not in pointless and next(flags, False)) for index, (place, _) in enumerate(cited)]


def _sentences(answer: str) -> list[tuple[int, int]]:
    """Spans of the sentences that say something, each with the markers that follow it."""
    found: list[tuple[int, int]] = []
    for start, end in sentence_spans(answer):
        opening = _opening_markers(answer, start, end)
        if found and opening > start and not _opens_line(answer, start):
            found[-1] = (found[-1][0], opening)
            start = opening
        if re.search(r"\w", MARKER.sub("", answer[start:end])):
            found.append((start, end))
        elif found:
            found[-1] = (found[-1][0], end)
    return found


def _opening_markers(answer: str, start: int, end: int) -> int:
    """Where the markers end with which the sentence opens; ``start`` if it opens with none."""
    place = start
    while (marker := MARKER.match(answer, place, end)) is not None:
        place = marker.end()
        while place < end and answer[place].isspace():
            place += 1
    return place


def _opens_line(answer: str, start: int) -> bool:
    return not answer[answer.rfind("\n", 0, start) + 1 : start].strip()
