"""Hard negatives: passages that a search puts near a question and that do not answer it (Karpukhin et al. 2020, arXiv 2004.04906).

The nearest hits are often answers that nobody marked (RocketQA, Qu et al. 2021, arXiv 2010.08191), so none may score above a share of the
positive's own score: NV-Retriever's "TopK-PercPos" with 95% (Moreira et al. 2024, arXiv 2407.15831). A search whose scores cannot be held
against a positive (BM25) leaves out the first hits instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from adapters.checks import check_share
from adapters.training.data import Related
from rag.core.errors import InputError
from rag.core.protocols import Encoder
from rag.core.types import Hit

Search = Callable[[list[str], int], list[list[Hit]]]
"""(questions, k): of each question at most k hits, best first."""

Similarity = Callable[[list[str], list[str]], Sequence[float]]
"""(questions, passages): the score that the search would give each pair."""

_BATCH = 256


@dataclass(frozen=True)
class Mining:
    """Which hits become negatives: of the first ``depth`` the best ``count`` that are allowed, after the first ``skip``.

    ``share``: allowed is what scores below this share of the positive's score (None: everything).
    """

    count: int = 4
    depth: int = 100
    skip: int = 0
    share: float | None = 0.95

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("depth", 1), ("skip", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"mining: {name} is a whole number from {least}, not {value!r}")
        if self.skip + self.count > self.depth:
            raise InputError(f"mining: {self.count} negatives behind {self.skip} hits need a depth of {self.skip + self.count} or more")
        if self.share is not None:
            check_share(self.share, "share", "mining")


@dataclass(frozen=True)
class Mined:
    """A record with its negatives, those it had before first. ``near`` hits were left out because they score too near to the positive."""

    record: Related
    near: int


def mine(records: Sequence[Related], search: Search, options: Mining = Mining(), similarity: Similarity | None = None) -> Iterator[Mined]:
    """``records`` in their order, each with at most ``options.count`` more negatives; some find fewer.

    What is, holds or is part of a positive of the same question, in this record or in another, is no negative. ``similarity`` is asked for
    with a ``share``. Raises `InputError` for a share without it, and what ``search`` raises.
    """
    if options.share is not None and similarity is None:
        raise InputError(
            "mining: a share of the positive's score needs a search that scores any pair; give share=None, and skip the first hits"
        )
    positives: dict[str, set[str]] = defaultdict(set)
    for record in records:
        positives[_plain(record.question)].add(_plain(record.positive))
    for at in range(0, len(records), _BATCH):
        batch = records[at : at + _BATCH]
        questions = [record.question for record in batch]
        ceilings = _ceilings(batch, options.share, similarity)
        for record, hits, ceiling in zip(batch, search(questions, options.depth), ceilings, strict=True):
            yield _mined(record, hits[options.skip :], positives[_plain(record.question)], ceiling, options.count)


def cosines(encoder: Encoder) -> Similarity:
    """The scores of a dense search by ``encoder``."""

    def scores(questions: list[str], passages: list[str]) -> list[float]:
        products = encoder.encode(questions, "query") * encoder.encode(passages, "passage")
        return [float(score) for score in products.sum(axis=1)]

    return scores


def _ceilings(records: Sequence[Related], share: float | None, similarity: Similarity | None) -> list[float]:
    if share is None or similarity is None:
        return [float("inf")] * len(records)
    scores = similarity([record.question for record in records], [record.positive for record in records])
    return [float(score) - (1 - share) * abs(float(score)) for score in scores]  # below the score, be it negative


def _mined(record: Related, hits: Sequence[Hit], positives: set[str], ceiling: float, count: int) -> Mined:
    chosen = list(record.negatives)
    seen = {_plain(text) for text in chosen}
    near = 0
    for hit in hits:
        if len(chosen) == len(record.negatives) + count:
            break
        text = _plain(hit.passage.text)
        if text in seen or any(text in positive or positive in text for positive in positives):
            continue
        if hit.score >= ceiling:
            near += 1
            continue
        seen.add(text)
        chosen.append(hit.passage.text)
    return Mined(Related(record.question, record.positive, tuple(chosen)), near)


def _plain(text: str) -> str:
    return " ".join(text.split())
