"""The measured tables of the method pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.method_pages import BEGIN, END, PAGES, RESULTS, table, with_table, write_tables
from benchmarks.methods import METHODS
from benchmarks.origin import ROOT
from benchmarks.report import Row
from benchmarks.results import Record, read_records
from rag.core.errors import InputError

METRICS = {"em": 0.25, "em_min": 0.2, "em_max": 0.3, "f1": 0.5, "f1_min": 0.4, "f1_max": 0.6, "calls": 2.5, "prompt_tokens": 1234.0}
RECORD = Record(
    "generators",
    "python -m benchmarks.generators",
    "2026-11-22T20:00:00Z",
    {},
    {},
    {},
    tuple(
        Row("generators", case, metric, value)
        for case in ("a/cited", "a/flare", "a/hyde", "in_flight/flare")
        for metric, value in METRICS.items()
    ),
)


def test_a_table_holds_the_method_and_what_it_is_compared_with() -> None:
    lines = table(RECORD, ("flare",)).splitlines()
    assert lines[0] == "Mean [95% interval], costs per question; `python -m benchmarks.generators`, 2026-11-22."
    assert lines[4:] == [
        "| a | cited | 0.250 [0.200, 0.300] | 0.500 [0.400, 0.600] | – | – | 2.5 | 1,234 | – |",
        "| a | flare | 0.250 [0.200, 0.300] | 0.500 [0.400, 0.600] | – | – | 2.5 | 1,234 | – |",
    ]


def test_it_stands_between_the_markers_and_replaces_what_stood_there() -> None:
    once = with_table(f"before\n{BEGIN}\n{END}\nafter\n", "| new |", "page.md")
    assert once == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    assert with_table(once, "| newer |", "page.md") == once.replace("new", "newer")


@pytest.mark.parametrize("page", ["no markers", f"{BEGIN} alone", f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_page_without_markers_is_an_error(page: str) -> None:
    with pytest.raises(InputError, match=r"page\.md: the measured table stands between"):
        with_table(page, "", "page.md")


def test_pages_are_written(tmp_path: Path) -> None:
    for name in PAGES:
        (tmp_path / name).write_text(f"# Page\n{BEGIN}\n{END}\n", "utf-8")
    write_tables(tmp_path, None)
    assert (tmp_path / "flare.md").read_text("utf-8") == f"# Page\n{BEGIN}\n{END}\n"
    write_tables(tmp_path, RECORD)
    assert "| a | flare | 0.250" in (tmp_path / "flare.md").read_text("utf-8")


def test_every_method_of_the_benchmark_has_a_page() -> None:
    assert {method for methods in PAGES.values() for method in methods} | {"direct", "cited"} == set(METHODS)


def test_the_published_tables_are_what_the_published_results_make() -> None:
    record = read_records(ROOT / "benchmarks" / "results").get(RESULTS)
    assert record is not None, "python -m benchmarks generators, then python -m benchmarks --only-docs"
    for name, methods in PAGES.items():
        page = (ROOT / "docs" / "methods" / name).read_text("utf-8")
        assert page == with_table(page, table(record, methods), name)
