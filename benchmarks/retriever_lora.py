"""A LoRA for the encoder, learnt from SciFact's training claims: does search find more for claims that it never saw?

    python -m benchmarks.retriever_lora --data ../shared/data

As one would do it with `rag index`, `rag mine`, `rag train` and `rag index --encoder-adapter`: the frozen MiniLM mines hard negatives, a
LoRA learns from them, and the abstracts are encoded again. Rate and number of negatives are chosen on training claims whose abstracts are
kept out of training. Then the 300 claims of the development set (BEIR's test set) are asked, by both encoders. Everything made is kept in
``--runs``: a stopped benchmark goes on with the same command.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters import LoRA
from adapters.training.data import Related
from adapters.training.mining import Mining
from adapters.training.options import Options
from benchmarks.data import RetrievalSet, scifact
from benchmarks.report import Row, parser, report
from benchmarks.scifact_claims import Claim, apart, training_claims
from benchmarks.workshop import Workshop
from rag.core.errors import ConfigError
from rag.core.types import Passage
from rag.evaluate.statistics import bootstrap_difference, bootstrap_mean, permutation_test
from retrievers.corpus import Corpus

NAME = "retriever_lora"
DEPTH = 10
POOL = 20
"""Hits of each development claim that make the passages on which rates are compared: to encode all of them for each rate takes too long."""


@dataclass(frozen=True)
class Scores:
    """Of each query, in one order."""

    ndcg: list[float]
    recall: list[float]

    @staticmethod
    def of(data: RetrievalSet, ranked: Mapping[str, Sequence[str]]) -> Scores:
        """``ranked`` are passage ids, best first, by query id."""
        import ir_measures
        from ir_measures import R, nDCG

        measures = (nDCG @ DEPTH, R @ DEPTH)
        run = {query: {id: -float(rank) for rank, id in enumerate(ids)} for query, ids in ranked.items()}
        found = {(each.query_id, each.measure): float(each.value) for each in ir_measures.iter_calc(measures, data.relevant, run)}
        return Scores(*([found.get((query, measure), 0.0) for query in data.queries] for measure in measures))


def rows(case: str, scores: Scores) -> list[Row]:
    """Both figures with their bootstrap intervals."""
    found: list[Row] = []
    for name, values in ((f"ndcg@{DEPTH}", scores.ndcg), (f"recall@{DEPTH}", scores.recall)):
        low, high = bootstrap_mean(values)
        ends = ((name, sum(values) / len(values)), (f"{name}_min", low), (f"{name}_max", high))
        found += [Row(NAME, case, label, value) for label, value in ends]
    return found


def gains(case: str, before: Sequence[float], after: Sequence[float]) -> list[Row]:
    """The mean difference of nDCG@10 with its bootstrap interval, and its p-value by the paired permutation test."""
    low, high = bootstrap_difference(before, after)
    gain = (sum(after) - sum(before)) / len(before)
    ends = (("gain", gain), ("gain_min", low), ("gain_max", high), ("p_gain", permutation_test(before, after)), ("claims", len(before)))
    return [Row(NAME, case, label, value) for label, value in ends]


def unseen(data: RetrievalSet, learnt: set[str]) -> list[int]:
    """The places of queries none of whose relevant passages was a positive in training."""
    return [at for at, query in enumerate(data.queries) if learnt.isdisjoint(data.relevant[query])]


@dataclass(frozen=True)
class Attempt:
    """One way to train."""

    rate: float
    negatives: int

    @property
    def case(self) -> str:
        """As the table calls it."""
        return f"development, rate {self.rate:g}, {self.negatives} mined"


def measure(given: argparse.Namespace) -> list[Row]:
    """All rows."""
    test, claims = _limited(scifact(given.data), training_claims(given.data), given.limit)
    learnt, held_out = _apart(claims, test, given.held_out)
    print(f"{len(learnt)} claims to learn from, {len(held_out)} to choose by, {len(test.queries)} to test", flush=True)
    shop = Workshop(given.runs, {"passages": _digest(test.passages)}, given.encoder)
    frozen = shop.corpus("frozen", test.passages)
    adapters = _adapters(given, shop, frozen, _records(learnt, test.passages))

    development = _development(held_out, test, shop.search(frozen, [claim.text for claim in held_out], POOL))
    tried = {
        attempt: _scores(shop, development, shop.corpus("development", development.passages, folder))
        for attempt, folder in adapters.items()
    }
    result = _ndcg("development, frozen", _scores(shop, development, frozen, [passage.id for passage in development.passages]))
    result += [row for attempt, scores in tried.items() for row in _ndcg(attempt.case, scores)]
    best = max(tried, key=lambda attempt: sum(tried[attempt].ndcg))

    before, after = _scores(shop, test, frozen), _scores(shop, test, shop.corpus("adapted", test.passages, adapters[best]))
    result += [*rows("frozen", before), *rows("lora", after), *gains("lora", before.ndcg, after.ndcg)]
    result += [Row(NAME, "lora", "rate", best.rate), Row(NAME, "lora", "negatives", best.negatives)]
    return result + _by_abstracts(test, {id for claim in learnt for id in claim.cited}, before, after)


def _apart(claims: Sequence[Claim], test: RetrievalSet, share: float) -> tuple[list[Claim], list[Claim]]:
    """To learn from and to choose by; a claim that the test asks in the same words is in neither."""
    asked = set(test.queries.values())
    learnt, held_out = apart([claim for claim in claims if claim.text not in asked], share)
    if not learnt or not held_out:
        raise ConfigError(f"{len(learnt)} claims to learn from and {len(held_out)} to choose by: change --held-out, or raise --limit")
    return learnt, held_out


def _records(claims: Sequence[Claim], passages: Sequence[Passage]) -> list[Related]:
    texts = {passage.id: passage.text for passage in passages}
    return [Related(claim.text, texts[id], ()) for claim in claims for id in sorted(claim.cited)]


def _adapters(given: argparse.Namespace, shop: Workshop, frozen: Corpus, records: Sequence[Related]) -> dict[Attempt, Path]:
    """The folder of each attempt's adapter."""
    found: dict[Attempt, Path] = {}
    for negatives in given.negatives:
        file = shop.mined(records, frozen, Mining(negatives, share=given.share)) if negatives else shop.plain(records)
        for rate in given.rates:
            method = LoRA(r=given.rank, alpha=2.0 * given.rank, targets=given.targets)
            options = Options(lr=rate, steps=given.steps, batch=given.batch, save_every=10, seed=given.seed)
            found[Attempt(rate, negatives)] = shop.trained(file, given.max_tokens, method, options)
    return found


def _by_abstracts(test: RetrievalSet, learnt: set[str], before: Scores, after: Scores) -> list[Row]:
    """The gain apart for claims whose abstracts were read in training, with other claims, and for those whose abstracts were not."""
    fresh = unseen(test, learnt)
    seen = sorted(set(range(len(test.queries))) - set(fresh))
    parts = (("lora, new abstracts", fresh), ("lora, known abstracts", seen))
    return [
        row
        for case, places in parts
        if places
        for row in gains(case, [before.ndcg[at] for at in places], [after.ndcg[at] for at in places])
    ]


def _ndcg(case: str, scores: Scores) -> list[Row]:
    return [row for row in rows(case, scores) if row.metric.startswith("ndcg")]


def _scores(shop: Workshop, data: RetrievalSet, corpus: Corpus, allowed: Sequence[str] | None = None) -> Scores:
    hits = shop.search(corpus, list(data.queries.values()), DEPTH, allowed)
    return Scores.of(data, dict(zip(data.queries, hits, strict=True)))


def _development(claims: Sequence[Claim], data: RetrievalSet, hits: Sequence[Sequence[str]]) -> RetrievalSet:
    """The held-out claims over what they cite and what the frozen encoder finds for them."""
    pool = {id for ids in hits for id in ids}.union(*(claim.cited for claim in claims))
    passages = [passage for passage in data.passages if passage.id in pool]
    relevant = {claim.id: dict.fromkeys(claim.cited, 1) for claim in claims}
    return RetrievalSet("development", passages, {claim.id: claim.text for claim in claims}, relevant)


def _limited(data: RetrievalSet, claims: Sequence[Claim], limit: int | None) -> tuple[RetrievalSet, Sequence[Claim]]:
    """``limit`` claims to test and four times as many of training, over what they cite and twenty times as many abstracts."""
    if limit is None:
        return data, claims
    queries, claims = dict(list(data.queries.items())[:limit]), claims[: 4 * limit]
    cited = {id for query in queries for id in data.relevant[query]}.union(*(claim.cited for claim in claims))
    passages = [passage for at, passage in enumerate(data.passages) if at < 20 * limit or passage.id in cited]
    return RetrievalSet(data.name, passages, queries, {query: data.relevant[query] for query in queries}), claims


def _digest(passages: Sequence[Passage]) -> str:
    return hashlib.sha256("\n".join(f"{passage.id} {passage.text}" for passage in passages).encode()).hexdigest()


def options() -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", type=Path, required=True, help="folder with scifact/")
    arguments.add_argument("--runs", type=Path, default=Path(f"results/{NAME}"), help="folder that keeps corpora and adapters")
    arguments.add_argument("--encoder", default="minilm", help="the frozen encoder: minilm, or a folder")
    arguments.add_argument("--rates", type=float, nargs="+", default=[5e-4], help="learning rates to choose among")
    arguments.add_argument("--steps", type=int, default=100, help="steps of the optimiser")
    arguments.add_argument("--batch", type=int, default=24, help="claims of a step")
    arguments.add_argument("--max-tokens", type=int, default=128, help="of a claim or an abstract in training")
    arguments.add_argument("--rank", type=int, default=16, help="of the LoRA")
    arguments.add_argument("--targets", default="all", help="layers that it changes: attention or all")
    arguments.add_argument("--negatives", type=int, nargs="+", default=[1], help="numbers of mined negatives of a claim to choose among")
    arguments.add_argument("--share", type=float, default=0.95, help="a negative scores below this share of the positive's score")
    arguments.add_argument("--held-out", type=float, default=0.15, help="share of the cited abstracts kept to choose the rate")
    arguments.add_argument("--limit", type=int, help="only so many claims of the test, four times as many of training, and few abstracts")
    arguments.add_argument("--seed", type=int, default=0, help="of the LoRA's start and the order of training")
    return arguments.parse_args()


def main() -> None:
    """Print the table."""
    given = options()
    report(measure(given), given, "torch", "transformers", "peft", "sentence-transformers", "faiss-cpu", "ir_measures")


if __name__ == "__main__":
    main()
