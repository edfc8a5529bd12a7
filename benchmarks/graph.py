"""What a run of the graph costs per node, beside Haystack: the same chains, the same passages, in one process, turn by turn.

    python -m benchmarks.graph

Each chain is one source of n documents followed by nodes that pass them on. Nothing is computed, so what is measured is the graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.report import Row, parser, report
from rag.core.pipeline import Pipeline
from rag.core.types import Hit, Passage

DOCUMENTS = (5, 100, 1_000)
NODES = (3, 32)


class Source:
    """Gives the same hits for every query."""

    def __init__(self, hits: list[Hit]) -> None:
        self.hits = hits

    def run(self, query: str) -> list[Hit]:
        """Return the hits."""
        return self.hits


class Pass:
    """Hands its hits on."""

    def run(self, hits: list[Hit]) -> list[Hit]:
        """Return what came in."""
        return hits


def our_chain(documents: int, nodes: int) -> Callable[[], Any]:
    """A chain in graft, as something to call."""
    hits = [Hit(Passage(str(i), f"text of passage {i} " * 10), 1.0, i) for i in range(1, documents + 1)]
    pipe = Pipeline().add("n0", Source(hits))
    for i in range(1, nodes):
        pipe.add(f"n{i}", Pass()).connect(f"n{i - 1}", f"n{i}")
    return lambda: pipe.run("q")


def haystack_chain(documents: int, nodes: int) -> Callable[[], Any]:
    """The same chain in Haystack."""
    from haystack import Document
    from haystack import Pipeline as HaystackPipeline

    from benchmarks.haystack_nodes import HaystackPass, HaystackSource

    pipe = HaystackPipeline()
    pipe.add_component("n0", HaystackSource([Document(id=str(i), content=f"text of passage {i} " * 10) for i in range(1, documents + 1)]))
    for i in range(1, nodes):
        pipe.add_component(f"n{i}", HaystackPass())
        pipe.connect(f"n{i - 1}.documents", f"n{i}.documents")
    return lambda: pipe.run({"n0": {"query": "q"}})


def microseconds(call: Callable[[], Any], seconds: float) -> float:
    """Median time of a call over repeats that fill ``seconds``, at least 3."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times) * 1e6


def measure(seconds: float) -> list[Row]:
    """All chains, ours and Haystack's turn by turn."""
    rows = []
    for documents in DOCUMENTS:
        for nodes in NODES:
            ours, peer = our_chain(documents, nodes), haystack_chain(documents, nodes)
            ours()
            peer()
            own, other = microseconds(ours, seconds) / nodes, microseconds(peer, seconds) / nodes
            rows.append(Row("graph", f"docs={documents},nodes={nodes}", "us_per_node", own, "µs", "haystack", other))
    return rows


def main() -> None:
    """Print the table."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--seconds", type=float, default=1.0, help="time to spend on each chain")
    options = arguments.parse_args()
    report(measure(options.seconds), options, "haystack-ai")


if __name__ == "__main__":
    main()
