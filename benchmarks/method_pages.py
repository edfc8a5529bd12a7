"""The measured tables of docs/methods, made from the published results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import adapter_tables, context_tables, generator_tables
from benchmarks.files import write_whole
from benchmarks.results import Record
from rag.core.errors import InputError

BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


@dataclass(frozen=True)
class Family:
    """Pages whose tables come from one record: the methods of each page by their names in the benchmark, and what makes a table of them."""

    pages: Mapping[str, tuple[str, ...]]
    table: Callable[[Record, Sequence[str]], str]


FAMILIES: Mapping[str, Family] = {
    "generators": Family(generator_tables.PAGES, generator_tables.table),
    "adapters": Family(adapter_tables.PAGES, adapter_tables.table),
    "context_store": Family(context_tables.STORE_PAGES, context_tables.store_table),
    "context_healing": Family(context_tables.HEALING_PAGES, context_tables.healing_table),
    "knn_lm": Family(context_tables.KNN_PAGES, context_tables.knn_table),
    "decoupled": Family(context_tables.DECOUPLED_PAGES, context_tables.decoupled_table),
}
"""By the name of the record."""


def write_tables(folder: Path, records: Mapping[str, Record]) -> None:
    """Write the tables into the pages below ``folder``. Raises `InputError` for a page without its markers."""
    for name, family in FAMILIES.items():
        for page, methods in family.pages.items():
            file = folder / page
            write_whole(file, with_table(file.read_text("utf-8"), made(name, records.get(name), methods), page))


def made(name: str, record: Record | None, methods: Sequence[str]) -> str:
    """What stands on the page of ``methods``: their table, or that there is no figure yet."""
    return FAMILIES[name].table(record, methods) if record is not None else f"Not measured yet: `python -m benchmarks {name}` does."


def with_table(page: str, text: str, name: str) -> str:
    """``page`` with ``text`` between its markers. Raises `InputError` if they are not there, once and in order."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before:
        raise InputError(f"{name}: the measured table stands between {BEGIN} and {END}, which the page must hold once")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"
