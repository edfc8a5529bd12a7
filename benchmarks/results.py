"""Reads published results: the records that benchmarks write, and the accounts of ``rag eval --json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.report import FORMAT, Row
from rag.core.errors import InputError
from rag.evaluate.account import FORMAT as ACCOUNT_FORMAT

EVALUATION = "eval-"
"""How the name of a file by ``rag eval --json`` begins."""


@dataclass(frozen=True, slots=True)
class Record:
    """One run of a benchmark; see `benchmarks.report`."""

    benchmark: str
    command: str
    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: tuple[Row, ...]


def read_records(folder: Path) -> dict[str, Record]:
    """The benchmarks' results in ``folder`` by name; none if it is not there. Raises `InputError` naming the file and what is wrong."""
    files = sorted(file for file in folder.glob("*.json") if not file.name.startswith((EVALUATION, ".")))
    return {file.stem: read_record(file) for file in files}


def read_record(file: Path) -> Record:
    """The result in ``file``. Raises `InputError`."""
    data = _object(file, FORMAT)
    expected = {field.name: str for field in fields(Record)} | {"machine": dict, "versions": dict, "settings": dict, "rows": list}
    for name, kind in expected.items():
        if not isinstance(data.get(name), kind):
            raise InputError(f"{file}: '{name}' is missing or not of type {kind.__name__}; it is not what a benchmark writes with --json")
    if not data["rows"]:
        raise InputError(f"{file}: it has no rows")
    rows = tuple(_row(file, number, row) for number, row in enumerate(data["rows"], 1))
    return Record(**{name: data[name] for name in expected if name != "rows"}, rows=rows)


def read_evaluations(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The accounts of ``rag eval --json`` in ``folder``, by file name without its ending. Raises `InputError`."""
    return {file.stem: _evaluation(file) for file in sorted(folder.glob(f"{EVALUATION}*.json"))}


def _evaluation(file: Path) -> dict[str, Any]:
    data = _object(file, ACCOUNT_FORMAT)
    expected = {"data": dict, "settings": dict, "versions": dict, "metrics": list, "pipelines": list, "differences": list}
    for name, kind in expected.items():
        if not isinstance(data.get(name), kind):
            raise InputError(f"{file}: '{name}' is missing or not of type {kind.__name__}; it is not what `rag eval --json` writes")
    return data


def _object(file: Path, known: int) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{file}: it is not JSON ({error}); measure it again or delete it") from error
    if not isinstance(data, dict):
        raise InputError(f"{file}: it holds a JSON {type(data).__name__}, not one record; measure it again")
    if data.get("format") != known:
        raise InputError(f"{file}: its format is {data.get('format')!r}, this version reads {known}; measure it again")
    return data


def _row(file: Path, number: int, data: Any) -> Row:
    if not isinstance(data, dict):
        raise InputError(f"{file}: row {number} is not an object")
    given: dict[str, Any] = {name: data.get(name) for name in ("benchmark", "case", "metric", "unit", "peer")}
    value: Any = data.get("value")
    peer_value: Any = data.get("peer_value")
    if any(not isinstance(text, str) for text in given.values()) or not _number(value) or not (peer_value is None or _number(peer_value)):
        raise InputError(
            f"{file}: row {number} needs the texts {', '.join(given)}, a number as 'value' and a number or null as 'peer_value'"
        )
    return Row(value=value, peer_value=peer_value, **given)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
