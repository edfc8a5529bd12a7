"""What a benchmark writes: one record that says how to measure it again, whole or not at all, and nothing private in it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.origin import ROOT, command_line, portable
from benchmarks.report import Row, parser, report, spreads
from benchmarks.results import read_record
from rag.core.errors import ConfigError, InputError

ROWS = [Row("graph", "docs=5", "us_per_node", 4.0, "µs", "haystack", 200.0), Row("graph", "docs=9", "peak_mb", 3.0, "MB")]


def options(file: Path | None, *more: str) -> argparse.Namespace:
    arguments = parser("what it measures")
    arguments.add_argument("--data", type=Path)
    arguments.add_argument("--url")
    return arguments.parse_args([*([] if file is None else ["--json", str(file)]), *more])


def test_the_record_says_how_it_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "graph.json"
    data = Path("/a/long/way/shared/data")
    given = ["--json", str(file), "--data", str(data), "--url", "http://me:secret@host:8000/v1?key=secret"]
    monkeypatch.setattr(sys, "argv", ["graph.py", *given])
    report(ROWS, options(file, *given[2:]), "numpy", "no-such-package")
    found = json.loads(file.read_text("utf-8"))
    assert set(found) == {"format", "benchmark", "command", "date", "machine", "versions", "settings", "rows"}
    assert (found["format"], found["benchmark"]) == (1, "graph")
    assert found["settings"] == {"data": "shared/data", "url": "http://host:8000/v1"}
    assert found["command"].endswith(" --data shared/data --url http://host:8000/v1")
    assert "--json" not in found["command"]
    assert "secret" not in file.read_text("utf-8")
    assert str(tmp_path) not in file.read_text("utf-8")
    assert set(found["versions"]) == {"graft-rag", "python", "numpy"}
    assert {"cpu", "cores", "memory_gib", "system"} <= set(found["machine"])
    assert found["rows"][0] == {
        "benchmark": "graph",
        "case": "docs=5",
        "metric": "us_per_node",
        "value": 4.0,
        "unit": "µs",
        "peer": "haystack",
        "peer_value": 200.0,
        "ratio": 0.02,
    }
    assert found["rows"][1]["ratio"] is None
    assert read_record(file).rows == tuple(ROWS)
    shown = capsys.readouterr().out
    assert "us_per_node" in shown
    assert "haystack" in shown


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "measured nothing"),
        ([Row("graph", "c", "m", float("nan"))], "graph, c: m is nan"),
        ([Row("g", "c", "m", 1, "", "p", float("inf"))], "against inf"),
    ],
)
def test_what_is_no_result_leaves_the_old_one(tmp_path: Path, rows: list[Row], message: str) -> None:
    file = tmp_path / "graph.json"
    file.write_text("old")
    with pytest.raises(ConfigError, match=message):
        report(rows, options(file))
    assert file.read_text() == "old"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "graph.json"
    file.write_text("old")

    def full(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match=r"graph\.json: cannot be written \(No space left on device\)"):
        report(ROWS, options(file))
    assert [entry.name for entry in tmp_path.iterdir()] == ["graph.json"]
    assert file.read_text() == "old"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/somebody/shared/data", "shared/data"),
        (Path("/data"), "data"),
        (ROOT / "examples" / "handbook", "examples/handbook"),
        (f"--corpus={ROOT}/docs", "--corpus=docs"),
        ("https://u:p@host/v1", "https://host/v1"),
        ("--url=https://u:p@host/v1#x", "--url=https://host/v1"),
        ("http://[broken", "http://…"),
        ("in_flight=64", "in_flight=64"),
        ("plain", "plain"),
        ([1, 2.5, True, None], [1, 2.5, True, None]),
    ],
)
def test_what_may_be_published(value: object, expected: object) -> None:
    assert portable(value) == expected


def test_a_folder_above_is_named_by_its_last_parts() -> None:
    assert portable("../shared/data") == "shared/data"
    assert command_line(["--json=x.json", "--data", "../shared/data"]).endswith(" --data shared/data")


def test_spreads_stand_with_their_figure_only_where_both_ends_are_there() -> None:
    rows = [
        Row("load", "a", "qps", 2.0),
        Row("load", "a", "qps_min", 1.0),
        Row("load", "a", "qps_max", 3.0),
        Row("load", "b", "t_min", 1.0),
    ]
    assert spreads(rows) == [(rows[0], " [1–3]"), (rows[3], "")]


RECORD: dict[str, Any] = {
    "format": 1,
    "benchmark": "graph",
    "command": "python -m benchmarks.graph",
    "date": "2026-01-31T00:00:00Z",
    "machine": {},
    "versions": {},
    "settings": {},
    "rows": [{"benchmark": "graph", "case": "c", "metric": "m", "value": 1.0, "unit": "", "peer": "", "peer_value": None, "ratio": None}],
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "a JSON list, not one record"),
        ({**RECORD, "format": 2}, "its format is 2, this version reads 1"),
        ({**RECORD, "rows": []}, "no rows"),
        ({**RECORD, "machine": "x"}, "'machine' is missing or not of type dict"),
        ({name: value for name, value in RECORD.items() if name != "command"}, "'command' is missing"),
        ({**RECORD, "rows": [1]}, "row 1 is not an object"),
        ({**RECORD, "rows": [{**RECORD["rows"][0], "value": "1"}]}, "row 1 needs"),
        ({**RECORD, "rows": [{**RECORD["rows"][0], "peer_value": True}]}, "row 1 needs"),
        ({**RECORD, "rows": [{"case": "c"}]}, "row 1 needs"),
    ],
)
def test_a_foreign_or_damaged_result_is_named(tmp_path: Path, content: object, message: str) -> None:
    file = tmp_path / "graph.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_record(file)
    assert str(file) in str(caught.value)
