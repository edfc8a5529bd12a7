"""Is this sentence evidence for this claim? A task with two labels, made of SciFact (Wadden et al. 2020, arXiv 2004.14974).

A text is a claim, its pair a sentence of a scientific abstract: "evidence" is a sentence that the annotators chose for the claim, "other"
one that they chose for a claim about another abstract. Each part holds every claim and every sentence equally often under both labels:
neither alone tells anything, a guess is right in half of the cases, and what is to be learnt is how the two relate.

Held out are claims and abstracts. The test pairs are made of SciFact's own dev claims, which are none of its train claims. But many a dev
claim is the negation of a train claim about the same abstract, and its evidence is then the same sentence: 110 of the 182 abstracts are in
both. A train claim's evidence in an abstract that the test cites is therefore left out; the test keeps all. The development part is cut
from the train pairs by abstract for the same reason, and takes its claims with it.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import random
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from adapters.training.data import Labelled
from benchmarks.data import scifact_rows
from rag.core.errors import InputError

LABELS = ("evidence", "other")
DEVELOPMENT = 0.15
"""Share of the train abstracts whose pairs are the development part."""


@dataclass(frozen=True)
class ClaimPairs:
    """Pairs of a claim (``text``) and a sentence (``text_pair``)."""

    train: Sequence[Labelled]
    development: Sequence[Labelled]
    test: Sequence[Labelled]

    def limited(self, limit: int | None) -> ClaimPairs:
        """The first ``limit`` pairs of each part (None: all)."""
        return replace(self, train=self.train[:limit], development=self.development[:limit], test=self.test[:limit])

    @property
    def sha256(self) -> str:
        """Of all parts, in their order."""
        return hashlib.sha256(json.dumps(asdict(self), ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Evidence:
    """What the annotators chose of one abstract for one claim."""

    claim: str
    abstract: str
    """Its id."""
    sentences: frozenset[int]
    """Places in the abstract, from 0."""


@dataclass(frozen=True)
class Chosen:
    """A sentence that is evidence for a claim."""

    claim: str
    abstract: str
    """Its id."""
    sentence: str


def claim_pairs(data: Path, seed: int = 0) -> ClaimPairs:
    """The three parts from ``data/scifact/scifact.zip``; ``seed`` draws the development part and the other sentences.

    Raises `InputError` if the file is not there or is another one.
    """
    train, test = (_evidence(scifact_rows(data, f"claims_{part}")) for part in ("train", "validation"))
    wanted = {found.abstract for found in [*train, *test]}
    abstracts = {row["doc_id"]: sentences(row["abstract"]) for row in scifact_rows(data, "corpus_train") if row["doc_id"] in wanted}
    return divided(train, test, abstracts, seed)


def divided(train: Sequence[Evidence], test: Sequence[Evidence], abstracts: Mapping[str, Sequence[str]], seed: int) -> ClaimPairs:
    """The three parts: no abstract is in two of them, and no claim."""
    tested = {found.abstract for found in test}
    left = sorted({found.abstract for found in train} - tested)
    random.Random(f"{seed} development").shuffle(left)
    developed = set(left[: max(1, round(DEVELOPMENT * len(left)))])
    development = [found for found in train if found.abstract in developed]
    claims = {found.claim for found in [*development, *test]}
    rest = [found for found in train if found.abstract not in tested | developed and found.claim not in claims]
    parts = (rest, development, test)
    return ClaimPairs(*(_labelled(_chosen(part, abstracts), seed) for part in parts))


def sentences(array: str) -> list[str]:
    """The texts of a NumPy array of strings as it prints: quoted, with blanks or an end of line between, short ones on one line."""
    tokens = tokenize.generate_tokens(io.StringIO(array).readline)
    return [" ".join(ast.literal_eval(token.string).split()) for token in tokens if token.type == tokenize.STRING]


def _evidence(rows: Iterable[Mapping[str, str]]) -> list[Evidence]:
    """A line of the file is one set of sentences that suffices; those of one claim and abstract are joined."""
    found: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        if row["evidence_doc_id"]:
            places = map(int, row["evidence_sentences"].strip("[]").split())
            found.setdefault((row["claim"], row["evidence_doc_id"]), set()).update(places)
    return [Evidence(*names, frozenset(places)) for names, places in found.items()]


def _chosen(part: Sequence[Evidence], abstracts: Mapping[str, Sequence[str]]) -> list[Chosen]:
    """One for each evidence sentence; the file has a place or two that its abstract does not."""
    places = [(found, place) for found in part for place in sorted(found.sentences) if place < len(abstracts[found.abstract])]
    return [Chosen(found.claim, found.abstract, abstracts[found.abstract][place]) for found, place in places]


def _labelled(chosen: Sequence[Chosen], seed: int) -> list[Labelled]:
    """Evidence and other in turns."""
    order = sorted({item.abstract for item in chosen})
    random.Random(f"{seed} others").shuffle(order)
    near = sorted(chosen, key=lambda item: order.index(item.abstract))
    pairs = zip(near, _shifted(near), strict=True)
    texts = [(one.claim, (one.sentence, other.sentence)) for one, other in pairs]
    return [Labelled(claim, sentence, label) for claim, both in texts for sentence, label in zip(both, LABELS, strict=True)]


def _shifted(near: Sequence[Chosen]) -> list[Chosen]:
    """The same in another order: none is of an abstract that holds evidence for the claim at its place.

    Those of an abstract stand together, so half the length is far enough for all but claims with several abstracts.
    """
    cited: dict[str, set[str]] = {}
    for item in near:
        cited.setdefault(item.claim, set()).add(item.abstract)
    for shift in range(len(near) // 2, len(near)):
        moved = [*near[shift:], *near[:shift]]
        if all(other.abstract not in cited[item.claim] for item, other in zip(near, moved, strict=True)):
            return moved
    raise InputError(f"{len(near)} evidence sentences are too few to give each claim a sentence of another abstract")
