"""The measured tables of the method pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import adapter_tables, context_tables, generator_tables
from benchmarks.method_pages import BEGIN, END, FAMILIES, made, with_table, write_tables
from benchmarks.methods import METHODS
from benchmarks.origin import ROOT
from benchmarks.report import Row
from benchmarks.results import Record, read_records
from rag.core.errors import InputError

METRICS = {"em": 0.25, "em_min": 0.2, "em_max": 0.3, "f1": 0.5, "f1_min": 0.4, "f1_max": 0.6, "calls": 2.5, "prompt_tokens": 1234.0}
LEARNT = {"accuracy": 0.75, "accuracy_min": 0.7, "accuracy_max": 0.8, "trainable_share": 0.0123, "peak_mb": 1234.0, "s_per_step": 0.25}


def record(name: str, cases: tuple[str, ...], metrics: dict[str, float]) -> Record:
    rows = tuple(Row(name, case, metric, value) for case in cases for metric, value in metrics.items())
    return Record(name, f"python -m benchmarks.{name}", "2026-11-22T20:00:00Z", {}, {}, {}, rows)


WRITES = record("generators", ("a/cited", "a/flare", "a/hyde", "in_flight/flare"), METRICS)
WEARS = record("adapters", ("frozen", "lora", "bitfit"), LEARNT)


def test_a_table_holds_the_method_and_what_it_is_compared_with() -> None:
    lines = generator_tables.table(WRITES, ("flare",)).splitlines()
    assert lines[0] == "Mean [95% interval], costs per question; `python -m benchmarks.generators`, 2026-11-22."
    assert lines[4:] == [
        "| a | cited | 0.250 [0.200, 0.300] | 0.500 [0.400, 0.600] | – | – | 2.5 | 1,234 | – |",
        "| a | flare | 0.250 [0.200, 0.300] | 0.500 [0.400, 0.600] | – | – | 2.5 | 1,234 | – |",
    ]


def test_a_table_of_an_adapter_stands_beside_the_head_alone() -> None:
    lines = adapter_tables.table(WEARS, ("lora",)).splitlines()
    assert lines[2] == "| method | accuracy | rate | trained | peak memory, MB | s a step |"
    assert lines[4:] == [
        "| frozen | 0.750 [0.700, 0.800] | – | 1.23% | 1,234 | 0.25 |",
        "| lora | 0.750 [0.700, 0.800] | – | 1.23% | 1,234 | 0.25 |",
    ]


def test_tables_of_contexts_hold_their_cases_with_ends_and_peers() -> None:
    ends = {"ttft_ratio": 11.5, "ttft_ratio_min": 10.0, "ttft_ratio_max": 12.0}
    timed = record("context_store", ("local/2k", "store/float16"), ends)
    rows = (*timed.rows, Row("context_store", "local/2k", "ttft_s", 0.3, "s", "full prefill", 3.45))
    answers = record("context_store", ("xquad/full",), {"questions": 80.0, "f1": 11.2, "f1_min": 8.0, "f1_max": 14.0}).rows
    whole = Record(timed.benchmark, timed.command, timed.date, {}, {}, {}, (*rows, *answers))
    lines = context_tables.store_table(whole, context_tables.STORE_PAGES["context-store.md"]).splitlines()
    assert lines[2:5] == [
        "| where | read in full, s | from RAM, s | full / RAM |",
        "| --- | ---: | ---: | ---: |",
        "| local/2k | 3.45 | 0.3 | 11.5 [10 – 12] |",
    ]
    assert lines[6:] == ["| questions / way | questions | F1 |", "| --- | ---: | ---: |", "| xquad/full | 80 | 11.2 [8 – 14] |"]
    healed = record("context_healing", ("answers/healed", "train/healed"), {"f1": 50.0, "f1_gain": 41.0})
    assert context_tables.healing_table(healed, ("answers/",)).splitlines()[2:] == [
        "| case | F1 | gain beside the bare model |",
        "| --- | ---: | ---: |",
        "| healed | 50 | 41 |",
    ]


def test_it_stands_between_the_markers_and_replaces_what_stood_there() -> None:
    once = with_table(f"before\n{BEGIN}\n{END}\nafter\n", "| new |", "page.md")
    assert once == f"before\n{BEGIN}\n| new |\n{END}\nafter\n"
    assert with_table(once, "| newer |", "page.md") == once.replace("new", "newer")


@pytest.mark.parametrize("page", ["no markers", f"{BEGIN} alone", f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_page_without_markers_is_an_error(page: str) -> None:
    with pytest.raises(InputError, match=r"page\.md: the measured table stands between"):
        with_table(page, "", "page.md")


def test_pages_are_written_and_say_where_there_is_no_record(tmp_path: Path) -> None:
    empty = f"# Page\n{BEGIN}\n{END}\n"
    for family in FAMILIES.values():
        for name in family.pages:
            (tmp_path / name).write_text(empty, "utf-8")
    write_tables(tmp_path, {})
    assert "Not measured yet: `python -m benchmarks adapters` does." in (tmp_path / "lora.md").read_text("utf-8")
    write_tables(tmp_path, {"generators": WRITES})
    assert "| a | flare | 0.250" in (tmp_path / "flare.md").read_text("utf-8")
    assert "Not measured yet" in (tmp_path / "lora.md").read_text("utf-8")
    write_tables(tmp_path, {"adapters": WEARS})
    assert "| lora | 0.750" in (tmp_path / "lora.md").read_text("utf-8")


def test_every_method_of_the_benchmark_has_a_page() -> None:
    assert {method for methods in generator_tables.PAGES.values() for method in methods} | {"direct", "cited"} == set(METHODS)


def test_every_adapter_has_a_page() -> None:
    rooms = [ROOT / "adapters" / room for room in ("additive", "selective", "reparameterised")]
    folders = {folder.parent.name for room in rooms for folder in room.glob("*/config.py")}
    assert {f"{name}.md" for name in folders} == {*adapter_tables.PAGES, *context_tables.HEALING_PAGES}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_published_tables_are_what_the_published_results_make(name: str) -> None:
    found = read_records(ROOT / "benchmarks" / "results").get(name)
    for file, methods in FAMILIES[name].pages.items():
        page = (ROOT / "docs" / "methods" / file).read_text("utf-8")
        assert page == with_table(page, made(name, found, methods), file)
