"""The runner keeps what succeeded, leaves what failed alone, and the page is what the results make it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.origin import ROOT
from benchmarks.page import page
from benchmarks.report import Row
from benchmarks.results import Record, read_evaluations, read_records
from benchmarks.runner import Benchmark

GOOD = '''"""Measures {name}.

More about it.
"""
from benchmarks.report import Row, parser, report

arguments = parser("")
arguments.add_argument("--value", type=float, default=1.0)
arguments.add_argument("--data")
options = arguments.parse_args()
print("at work")
report([Row("{name}", "a|b", "figure", options.value, "s", "peer", 2.0), Row("{name}", "c", "alone", 5.0)], options)
'''
BROKEN = GOOD + "raise SystemExit(3)\n"
SILENT = '"""Writes nothing."""\n'
GARBAGE = '"""Writes no record."""\nimport sys\nopen(sys.argv[sys.argv.index("--json") + 1], "w").write("[]")\n'
HANGS = '''"""Waits for ever."""
import pathlib, sys, time
pathlib.Path("started").touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path("ended").touch()
    raise
'''
TABLE = {
    "first": Benchmark(("--value", "4"), quick=("--value", "8")),
    "second": Benchmark(("--data", "DATA")),
}


class Bench:
    """The runner over scripted benchmarks in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.results = root / "benchmarks" / "results"

    def write(self, **modules: str) -> None:
        package = self.root / "scripted"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        for name, code in modules.items():
            (package / f"{name}.py").write_text(code.replace("{name}", name))

    def __call__(self, *arguments: str, table: dict[str, Benchmark] = TABLE) -> int:
        return command.main(arguments, table, "scripted", self.root)

    def values(self) -> dict[str, float]:
        return {name: record.rows[0].value for name, record in read_records(self.results).items()}

    def text(self) -> str:
        return (self.root / "docs" / "benchmarks.md").read_text("utf-8")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.chdir(tmp_path)
    found = Bench(tmp_path)
    found.write(first=GOOD, second=GOOD)
    return found


def test_all_run_one_table_and_the_page(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench("--data", str(bench.root)) == 0
    assert bench.values() == {"first": 4.0, "second": 1.0}
    out = capfd.readouterr().out
    assert out.count("at work") == 2
    together = out[out.index("all benchmarks") :]
    assert "first" in together
    assert "second" in together
    text = bench.text()
    assert "| a\\|b | figure | 4 | s | peer | 2 | 2 |" in text
    assert "| c | 5 |" in text
    assert text.index("## first") < text.index("## second")
    assert sorted(entry.name for entry in bench.results.iterdir()) == ["first.json", "second.json"]


def test_a_failure_keeps_the_old_result_and_the_others_go_on(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench("--data", str(bench.root)) == 0
    old = (bench.results / "first.json").read_bytes()
    for code, reason in ((BROKEN, "exit code 3"), (SILENT, "wrote no result"), (GARBAGE, "not one record")):
        bench.write(first=code)
        (bench.results / "second.json").unlink()
        assert bench("--data", str(bench.root)) == 1
        assert (bench.results / "first.json").read_bytes() == old
        assert bench.values()["second"] == 1.0
        assert sorted(entry.name for entry in bench.results.iterdir()) == ["first.json", "second.json"]
        (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("first failed")]
        assert reason in line


def test_missing_runs_only_what_has_no_result(bench: Bench) -> None:
    assert bench("first") == 0
    bench.write(first=BROKEN)
    assert bench("--missing", "--data", str(bench.root)) == 0
    assert bench.values() == {"first": 4.0, "second": 1.0}
    assert bench("--missing") == 0  # nothing is left to run, so no data are needed either


def test_quick_touches_neither_the_published_results_nor_the_page(bench: Bench) -> None:
    assert bench("first", "--quick") == 0
    assert not bench.results.exists()
    assert not (bench.root / "docs").exists()
    (record,) = read_records(bench.root / "results" / "benchmarks-quick").values()
    assert record.settings["value"] == 8.0


def test_only_docs_measures_nothing(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench("first") == 0
    bench.write(first=BROKEN)
    before = bench.text()
    (bench.root / "docs" / "benchmarks.md").unlink()
    capfd.readouterr()
    assert bench("--only-docs") == 0
    assert bench.text() == before
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("second",), "second: the data are needed; add --data"),
        (("--data", "nowhere"), "nowhere: there is no such folder"),
        (("--only-docs",), "no such folder"),
    ],
)
def test_a_wrong_call_runs_nothing(bench: Bench, arguments: tuple[str, ...], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench(*arguments) == 2
    found = capfd.readouterr()
    assert message in found.err
    assert "at work" not in found.out
    assert not (bench.root / "docs").exists()


def test_an_unknown_name_is_answered_with_the_known_ones(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench("third")
    assert "there is no benchmark third; there are: first, second" in capfd.readouterr().err


def test_a_damaged_result_is_named_and_the_page_stays(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    assert bench("first") == 0
    before = bench.text()
    (bench.results / "other.json").write_text("{")
    assert bench("--only-docs") == 2
    assert "other.json: it is not JSON" in capfd.readouterr().err
    assert bench.text() == before


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_benchmark_and_keeps_what_was_done(bench: Bench, kind: signal.Signals) -> None:
    bench.write(second=HANGS)
    code = (
        "import sys; from pathlib import Path; from benchmarks.__main__ import main; from benchmarks.runner import Benchmark;"
        "sys.exit(main([], {'first': Benchmark(), 'second': Benchmark()}, 'scripted', Path.cwd()))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if Path("started").exists():
            break
        time.sleep(0.1)
    process.send_signal(kind)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == command.STOPPED, errors
    assert Path("ended").exists()
    assert "--missing goes on" in errors
    assert "Traceback" not in errors.split("stopped;")[1]
    assert bench.values() == {"first": 1.0}
    assert "## first" in bench.text()


def record(*rows: Row, **more: Any) -> Record:
    machine = {"cpu": "Fast 9000", "cores": 2, "memory_gib": 8.0, "system": "Linux x86_64"}
    return Record(**{"benchmark": "first", "command": "python -m benchmarks.first", "date": "2026-01-31T00:00:00Z", "machine": machine,
                     "versions": {"graft-rag": "1.0"}, "settings": {}, "rows": rows, **more})  # fmt: skip


def test_the_page_says_what_when_where_and_with_what(bench: Bench) -> None:
    rows = [Row("first", "n=1", "qps", 2.0, "1/s"), Row("first", "n=1", "qps_min", 1.0, "1/s"), Row("first", "n=1", "qps_max", 3.0, "1/s")]
    rows += [Row("first", "n=2", "qps", 1234.5, "1/s"), Row("first", "n=2", "failed", 0)]
    text = page({"first": record(*rows)}, {}, bench.root / "scripted")
    assert "Measures first.\n\n" in text
    assert "`python -m benchmarks.first` · 2026-01-31T00:00:00Z · Fast 9000, 2 cores, 8.0 GiB, Linux x86_64 · graft-rag 1.0" in text
    assert "| case | qps, 1/s | failed |\n| --- | ---: | ---: |\n| n=1 | 2 [1–3] |  |\n| n=2 | 1,234 | 0 |" in text
    assert "Nothing was measured yet" in page({}, {})


ACCOUNT: dict[str, Any] = {
    "format": 1,
    "data": {"name": "xquad", "questions": 1190, "passages": 240, "fingerprint": "abc"},
    "settings": {"data": "/home/somebody/data/xquad.json", "limit": None, "seed": 7},
    "versions": {"graft-rag": "1.0"},
    "metrics": ["f1"],
    "pipelines": [
        {"name": "a<b>", "failed": 0, "means": {"f1": {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 1190}}},
        {"name": "none", "failed": 1190, "means": {"f1": None}},
    ],
    "differences": [
        {"metric": "f1", "base": "a<b>", "pipeline": "none", "mean": 0.1, "low": 0.0, "high": 0.2, "n": 9, "p": 0.0001, "corrected": 0.04}
    ],
}


def test_an_evaluation_is_a_section_with_intervals_and_p_values(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.results.mkdir(parents=True)
    (bench.results / "eval-xquad.json").write_text(json.dumps(ACCOUNT))
    assert bench("--only-docs") == 0
    text = bench.text()
    assert "## rag eval: xquad\n" in text
    assert "1,190 questions, 240 passages" in text
    assert "data data/xquad.json, seed 7; fingerprint of the data `abc`" in text
    assert "somebody" not in text
    assert "| a&lt;b> | 0 | 0.5 [0.25, 0.75] |\n| none | 1,190 | – |" in text
    assert "| none − a&lt;b> | f1 | +0.1 [+0, +0.2] | 9 | < 0.001 | 0.040 |".replace("< 0", "&lt; 0") in text
    (bench.results / "eval-xquad.json").write_text(json.dumps({**ACCOUNT, "metrics": None}))
    assert bench("--only-docs") == 2
    assert "'metrics' is missing or not of type list" in capfd.readouterr().err
    (bench.results / "eval-xquad.json").write_text(json.dumps({**ACCOUNT, "pipelines": [{"name": "a"}]}))
    assert bench("--only-docs") == 2
    assert "eval-xquad.json: it is not what `rag eval --json` writes (KeyError: 'failed')" in capfd.readouterr().err
    assert bench.text() == text


def test_each_benchmark_of_the_table_is_a_module() -> None:
    assert command.BENCHMARKS
    for name in command.BENCHMARKS:
        assert (ROOT / "benchmarks" / f"{name}.py").is_file(), name


def test_the_published_page_is_what_the_published_results_make() -> None:
    results = ROOT / "benchmarks" / "results"
    records = command.ordered(read_records(results), list(command.BENCHMARKS))
    assert records
    assert (ROOT / "docs" / "benchmarks.md").read_text("utf-8") == page(records, read_evaluations(results))
