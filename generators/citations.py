"""Citation markers in an answer: found, tied to what they claim, and checked against the passages they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from generators.support import support
from rag.core.types import Citation, Hit, Passage
from retrievers.chunkers.sentences import sentence_spans

MARKER = re.compile(r"[\[［【]\s*([0-9]{1,4}(?:\s*[,;，、；]\s*[0-9]{1,4})*)\s*[\]］】]")
_GROUP = re.compile(rf"{MARKER.pattern}(?:\s*[,;，、；]?\s*{MARKER.pattern})*")


@dataclass(frozen=True, slots=True)
class Claim:
    """What a group of neighbouring markers, ``text[start:end]`` of the answer, vouches for. ``text`` is free of markers."""

    text: str
    start: int
    end: int


def claims(answer: str) -> list[Claim]:
    """Each group of markers with the sentence it belongs to.

    A group after a full stop belongs to the sentence before it, unless it opens its line or the whole answer writes its markers first.
    Where a sentence holds several groups, each vouches for the part since the group before it, and the last one for the rest as well.
    """
    groups = list(_GROUP.finditer(answer))
    spans = sentence_spans(answer)
    markers_first = bool(groups) and not answer[: groups[0].start()].strip()
    owners = [_owner(answer, spans, group, markers_first) for group in groups]
    found = []
    for number, (group, owner) in enumerate(zip(groups, owners, strict=True)):
        start, end = spans[owner]
        if number > 0 and owners[number - 1] == owner:
            start = groups[number - 1].end()
        if number + 1 < len(groups) and owners[number + 1] == owner:
            end = group.start()
        text = _without_markers(answer[start:end])
        if not re.search(r"\w", text):
            text = _without_markers(answer[slice(*spans[owner])])
        found.append(Claim(text, group.start(), group.end()))
    return found


def _owner(answer: str, spans: Sequence[tuple[int, int]], group: re.Match[str], markers_first: bool) -> int:
    """The index of the sentence that ``group`` belongs to."""
    holder = next(index for index, (_, end) in enumerate(spans) if group.start() < end)
    opens_sentence = not answer[spans[holder][0] : group.start()].strip()
    opens_line = not answer[answer.rfind("\n", 0, group.start()) + 1 : group.start()].strip()
    closes_line = not answer[group.end() :].partition("\n")[0].strip()
    if opens_sentence and holder > 0 and (closes_line or not (opens_line or markers_first)):
        return holder - 1
    return holder


def _without_markers(text: str) -> str:
    return MARKER.sub(" ", text).strip()


def check(answer: str, sources: Sequence[Hit], threshold: float) -> tuple[list[Citation], list[str]]:
    """The citations that ``answer`` makes, and a note for each that is invalid.

    A marker beyond ``sources`` has no passage, so it becomes a note and no `Citation`. A citation is valid if its passage holds at least
    ``threshold`` of the claim's content words and every number of the claim.
    """
    citations: list[Citation] = []
    notes: list[str] = []
    for claim in claims(answer):
        for marker in MARKER.finditer(answer, claim.start, claim.end):
            for number in (int(digits) for digits in re.findall(r"[0-9]+", marker[1])):
                if not 1 <= number <= len(sources):
                    notes.append(f"[{number}] at character {marker.start()} points to no source; there are {len(sources)}")
                    continue
                passage = sources[number - 1].passage
                found = support(claim.text, source_text(passage))
                valid = found.passes(threshold)
                citations.append(Citation(number, passage, marker.start(), marker.end(), found.share, valid))
                if not valid:
                    lacking = f", which lacks {', '.join(found.missing_numbers)}" if found.missing_numbers else ""
                    notes.append(f"[{number}] at character {marker.start()} is not supported by its source{lacking}")
    return citations, notes


def attach(answer: str, sources: Sequence[Hit], threshold: float) -> tuple[str, list[Citation]]:
    """Markers for an ``answer`` that has none: text to append, such as " [1][3]", and its citations.

    Each sentence is matched with the source that holds most of it; those that pass ``threshold`` are cited, in the order of the sentences.
    ``supported`` is the lowest share among the sentences that a source stands for.
    """
    matched: dict[int, float] = {}
    for start, end in sentence_spans(answer):
        if not sources:
            break
        found = [support(answer[start:end], source_text(hit.passage)) for hit in sources]
        best = max(range(len(found)), key=lambda index: (found[index].passes(threshold), found[index].share, -index))
        if found[best].passes(threshold):
            matched[best] = min(found[best].share, matched.get(best, 1.0))
    suffix = "" if not matched or answer[-1:].isspace() else " "
    citations = []
    for index, share in matched.items():
        marker = f"[{index + 1}]"
        start = len(answer) + len(suffix)
        citations.append(Citation(index + 1, sources[index].passage, start, start + len(marker), share, True))
        suffix += marker
    return suffix, citations


def source_text(passage: Passage) -> str:
    """What the model reads of ``passage``: its title, where it has one, and its text."""
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text
