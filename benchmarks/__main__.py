"""Runs the benchmarks one after the other, prints one table of all figures, and writes ``docs/benchmarks.md``.

    python -m benchmarks [NAME …] --data ../shared/data

Each result is kept as soon as it is there, in ``benchmarks/results/NAME.json``. A benchmark that fails leaves its old result alone and is
named at the end. ``--missing`` goes on where a run was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.files import write_whole
from benchmarks.method_pages import write_tables
from benchmarks.origin import ROOT
from benchmarks.page import page
from benchmarks.report import screen, table
from benchmarks.results import Record, read_evaluations, read_records
from benchmarks.runner import Benchmark, Runner
from rag.core.errors import ConfigError, GraftError

BENCHMARKS = {  # in the order of the page; --data DIR is added to those that name DATA
    "graph": Benchmark(quick=("--seconds", "0.05")),
    "retrieval": Benchmark(("--data", "DATA"), quick=("--data", "DATA", "--no-quality", "--passages", "5000", "--queries", "400")),
    "index_build": Benchmark(quick=("--encoded", "64", "--rounds", "1")),
    "evaluate": Benchmark(quick=("--single", "4", "--rounds", "1", "--no-hybrid")),
    "generators": Benchmark(("--data", "DATA"), quick=("--data", "DATA", "--limit", "2", "--sets", "xquad", "--race")),
    "adapters": Benchmark(
        ("--data", "DATA"),
        quick=("--data", "DATA", "--cases", "lora", "bitfit", "--steps", "3", "--choice-steps", "2", "--limit", "16", "--no-speed"),
    ),
    "domain_gain": Benchmark(
        ("--data", "DATA"), quick=("--data", "DATA", "--steps", "1", "--questions", "4", "--batch", "1", "--accumulate", "1")
    ),
    "retriever_lora": Benchmark(
        ("--data", "DATA"), quick=("--data", "DATA", "--limit", "8", "--steps", "2", "--rates", "1e-3", "--negatives", "1")
    ),
    "lorahub": Benchmark(
        ("--data", "DATA"),
        quick=(
            *("--data", "DATA", "--tasks", "boolean_expressions", "navigate", "--unseen", "web_of_lies", "--steps", "2", "--limit", "8"),
            *("--held-out", "8", "--evaluations", "4", "--candidates", "2", "--rounds", "2"),
        ),
    ),
    "knn_lm": Benchmark(
        ("--data", "DATA"),
        quick=(
            *("--data", "DATA", "--store-articles", "2", "--hold-out", "2", "--test-articles", "1", "--test-every", "1"),
            *("--window", "256", "--stride", "192"),
        ),
    ),
    "context_store": Benchmark(
        ("--data", "DATA"),
        quick=("--data", "DATA", "--limit", "1", "--contexts", "256", "--server", "256", "--piece", "128", "--rounds", "1"),
    ),
    "decoupled": Benchmark(
        ("--data", "DATA"),
        quick=(
            *("--data", "DATA", "--abstracts", "60", "--held-out", "6", "--steps", "3", "--batch", "4"),
            *("--vocabulary", "600", "--width", "32"),
        ),
    ),
    "context_healing": Benchmark(
        ("--data", "DATA", "--control", "--links", "5"), quick=("--data", "DATA", "--limit", "2", "--steps", "1", "--accumulate", "1")
    ),
    "adapter_serving": Benchmark(quick=("--requests", "10", "--max-tokens", "4", "--rounds", "1")),
    "serve": Benchmark(quick=("--clients", "1", "4", "--rounds", "1", "--max-tokens", "4")),
    "soak": Benchmark(quick=("--minutes", "0.5", "--max-tokens", "4")),
    "load": Benchmark(quick=("--requests", "8", "--concurrency", "1", "8", "--repeats", "1")),
}
STOPPED = 130
"""Exit status after Ctrl-C, as a shell gives it."""


def main(
    arguments: Sequence[str] | None = None, benchmarks: dict[str, Benchmark] = BENCHMARKS, package: str = "benchmarks", root: Path = ROOT
) -> int:
    """Return the exit status: 0, 1 if a benchmark failed, 2 for a wrong call or result file, `STOPPED` after Ctrl-C."""
    options = _options(arguments, benchmarks)
    results = options.results or root / ("results/benchmarks-quick" if options.quick else "benchmarks/results")
    docs = options.docs or (None if options.quick else root / "docs" / "benchmarks.md")
    runner = Runner(package, results, options.data)
    status = 0
    try:
        if not options.only_docs:
            runner.run({name: benchmarks[name].arguments(options.quick) for name in options.names or benchmarks}, missing=options.missing)
    except KeyboardInterrupt:
        status = STOPPED
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    status = status or (1 if runner.failed else 0)
    try:
        _publish(results, docs, list(benchmarks), show=not options.only_docs)
    except GraftError as error:
        print(f"error: {error}", file=sys.stderr)
        status = status or 2
    for name, reason in runner.failed.items():
        print(f"{name} failed: {reason}; its old result, if there is one, is as it was", file=sys.stderr)
    if status == STOPPED:
        print(f"stopped; what was finished is kept in {results}; --missing goes on", file=sys.stderr)
    return status


def _publish(results: Path, docs: Path | None, order: Sequence[str], *, show: bool) -> None:
    found = read_records(results)
    if not found and not results.is_dir():
        raise ConfigError(f"{results}: there is no such folder, so there are no results to show")
    records = ordered(found, order)
    if show and records:
        screen().print(table([row for record in records.values() for row in record.rows], "all benchmarks", named=True))
    if docs is not None:
        write_whole(docs, page(records, read_evaluations(results)))
        if (docs.parent / "methods").is_dir():
            write_tables(docs.parent / "methods", records)


def ordered(records: Mapping[str, Record], order: Sequence[str]) -> dict[str, Record]:
    """Those of the table in its order, then the others."""
    known = [name for name in order if name in records]
    return {name: records[name] for name in [*known, *(name for name in records if name not in order)]}


def _options(arguments: Sequence[str] | None, benchmarks: dict[str, Benchmark]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(benchmarks)} (default: all)")
    parser.add_argument("--data", type=Path, help="folder of the real data sets")
    parser.add_argument("--results", type=Path, help="folder of the results (default: benchmarks/results)")
    parser.add_argument("--docs", type=Path, help="page to write (default: docs/benchmarks.md)")
    parser.add_argument(
        "--quick", action="store_true", help="only try that all of them run; results go to results/benchmarks-quick, no page"
    )
    parser.add_argument("--missing", action="store_true", help="only those without a result")
    parser.add_argument("--only-docs", action="store_true", help="measure nothing, write the page from the results")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in benchmarks]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are: {', '.join(benchmarks)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
