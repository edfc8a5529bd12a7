"""SciFact's training claims, and a split by what they cite."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import scifact_rows


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim and the ids of the abstracts that it cites."""

    id: str
    text: str
    cited: frozenset[str]


def training_claims(data: Path) -> list[Claim]:
    """The 809 claims of the training set, which cite 919 abstracts in all (BEIR's training set). Raises `InputError`."""
    texts: dict[str, str] = {}
    cited: dict[str, set[str]] = {}
    for row in scifact_rows(data, "claims_train"):
        texts[row["id"]] = row["claim"]
        cited.setdefault(row["id"], set()).update(row["cited_doc_ids"].strip("[]").split())
    return [Claim(id, text, frozenset(cited[id])) for id, text in texts.items()]


def apart(claims: Sequence[Claim], share: float) -> tuple[list[Claim], list[Claim]]:
    """``claims`` to learn from and claims to choose by, without a common abstract; those that cite of both are left out.

    About ``share`` of the abstracts, by a hash of their ids, are kept for the second.
    """
    held_out = {id for claim in claims for id in claim.cited if _place(id) < share}
    learnt = [claim for claim in claims if claim.cited.isdisjoint(held_out)]
    return learnt, [claim for claim in claims if claim.cited <= held_out]


def _place(id: str) -> float:
    """A number from 0 to below 1 that depends on ``id`` alone."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:6], "big") / 2**48
