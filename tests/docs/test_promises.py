"""Every promise of docs/promises.md names tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = [line for line in (ROOT / "docs" / "promises.md").read_text("utf-8").splitlines() if line.startswith("| ") and "---" not in line]
ROWS = [line for line in LINES if line not in ("| promise | test |", "| input | promise | test |")]
GROUPS = 10
"""Kinds of hostile input."""
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", "\n".join(ROWS))))


def test_there_are_promises_and_each_has_a_test() -> None:
    assert len(ROWS) > 20
    without = [row for row in ROWS if not re.search(r"`tests/[\w/]+\.py::test_\w+`", row)]
    assert without == []


def test_every_kind_of_hostile_input_has_its_line() -> None:
    kinds = [row for row in ROWS if re.match(r"\| \d+\. ", row)]
    assert [row.partition(".")[0].removeprefix("| ") for row in kinds] == [str(number) for number in range(1, GROUPS + 1)]
    assert all(len(re.findall(r"::test_\w+`", row)) > 2 for row in kinds)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_test_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
