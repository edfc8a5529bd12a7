"""Data sets behind one function: `load` reads any known format, `catalogue` lists what there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rag.core.errors import InputError, ReadError
from rag.evaluate.datasets.catalogue import Entry, catalogue
from rag.evaluate.datasets.draft import check, finish
from rag.evaluate.datasets.formats import data_format, detected, named
from rag.evaluate.datasets.hub import PREFIX, from_hub
from rag.evaluate.datasets.selection import check_selection, select
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import DataSet

__all__ = ["Entry", "catalogue", "data_format", "load"]


def load(source: str | Path, *, format: str | None = None, limit: int | None = None, sample: int | None = None, seed: int = 0) -> DataSet:
    """The data set in a file or folder, or, for ``hub:NAME``, on the Hugging Face hub (see `rag.evaluate.datasets.hub`).

    ``format`` None: told from the content. ``limit``: only the first so many questions; ``sample``: so many drawn at random with ``seed``,
    in the file's order. The passages are always all of them, so that retrieval is as hard as with the whole set. The fingerprint covers
    the questions kept and the passages.

    Raises `InputError` for a file that is not of the format, an unknown format, no questions, repeated ids, questions without answers and
    a wrong ``limit`` or ``sample``; `ReadError` for a file that is missing or not UTF-8; `MissingDependency` for the hub without the
    package datasets.
    """
    check_selection(limit, sample, seed)
    if format is not None:
        named(format)
    if isinstance(source, str) and source.startswith(PREFIX):
        opened = from_hub(source)
    else:
        opened = Source(Path(source))
        if not opened.path.exists():
            raise ReadError(f"{source}: there is no such file or folder (`rag eval --list FOLDER` shows the data sets in a folder)")
    known = named(format) if format is not None else detected(opened)
    opened.expect(known.name, known.fields)
    try:
        draft = known.read(opened)
    except RecursionError:
        raise InputError(f"{source}: nested too deep to be a data set") from None
    check(draft, str(source))
    chosen = select(draft.questions, limit=limit, sample=sample, seed=seed, where=str(source))
    return finish(replace(draft, questions=chosen), name=opened.label, metrics=known.metrics, licence=known.licence)
