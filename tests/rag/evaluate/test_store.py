from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from rag.core.errors import InputError, RunError
from rag.evaluate.runner import evaluate
from rag.evaluate.store import DATABASE, RunFolder, read_runs
from rag.evaluate.types import Outcome
from tests.rag.evaluate.parts import Numbered, asked, numbers, pipeline

WHOLE = Outcome(
    "q",
    "half a pair: \ud83d",
    True,
    (("p1", True), ("p2", False)),
    ("p1", "p2"),
    {"calls": 2},
    1.5,
    0.25,
    "",
    {"node": "x", "children": []},
)


def test_an_outcome_comes_back_as_it_was(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "runs") as store:
        store.claim_run("a", {})
        store.add("a", WHOLE)
        store.add("b", replace(WHOLE, error="failed"))
    with RunFolder(tmp_path / "runs") as store:
        assert store.outcomes("a") == {"q": WHOLE}
        assert store.outcomes("b")["q"].error == "failed"
        assert store.outcomes("c") == {}
        assert store.rate("a") is None


def test_a_run_is_read_while_it_is_written(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "runs") as store:
        store.claim_run("a", {})
        store.claim_run("b", {})
        store.add("a", WHOLE)
        assert read_runs(tmp_path / "runs") == {"a": {"q": WHOLE}, "b": {}}
    assert read_runs(tmp_path / "runs")["a"] == {"q": WHOLE}


def test_what_is_no_run_folder_is_not_read_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run folder here"):
        read_runs(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    with sqlite3.connect(tmp_path / DATABASE) as other:
        other.execute("CREATE TABLE x (y)")
    with pytest.raises(InputError, match="not one of graft's"):
        read_runs(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"no database at all" * 100)
    with pytest.raises(RunError, match="SQLite cannot go on"):
        read_runs(tmp_path)


def test_only_a_failed_outcome_is_replaced(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as store:
        store.add("a", replace(WHOLE, error="failed"))
        store.add("a", WHOLE)
        with pytest.raises(RunError, match="question 'q' of run 'a' has an outcome already"):
            store.add("a", replace(WHOLE, answer="other"))
        assert store.outcomes("a") == {"q": WHOLE}


def test_the_rate_is_over_all_sessions(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as store:
        store.claim_run("a", {})
        store.add_time("a", 10, 2.0)
        store.add_time("a", 20, 4.0)
        assert store.rate("a") == 5.0
        assert store.rate("b") is None
        with pytest.raises(InputError, match="no run 'b'"):
            store.key("b")


def test_a_folder_of_other_questions_or_another_pipeline_is_refused_with_what_differs(tmp_path: Path) -> None:
    folder, log = tmp_path / "runs", str(tmp_path / "log")
    evaluate(pipeline(Numbered(log, wrong=3)), numbers(5), folder=folder, name="a")
    before = (folder / DATABASE).read_bytes()
    with pytest.raises(InputError, match=r"run 'a' of another pipeline \(pipeline: 'wrong: 3' then, 'wrong: 4' now\); nothing was changed"):
        evaluate(pipeline(Numbered(log, wrong=4)), numbers(5), folder=folder, name="a")
    with pytest.raises(
        InputError, match=r"evaluation of other questions \(fingerprint: 'numbers up to 5' then, 'numbers up to 6' now; quest"
    ):
        evaluate(pipeline(Numbered(log, wrong=3)), numbers(6), folder=folder, name="a")
    fewer = replace(numbers(5), questions=numbers(5).questions[1:])
    with pytest.raises(InputError, match=r"other questions \(questions: '5' then, '4' now"):
        evaluate(pipeline(Numbered(log, wrong=3)), fewer, folder=folder, name="b")
    assert (folder / DATABASE).read_bytes() == before
    assert len(asked(log)) == 5
    evaluate(pipeline(Numbered(log, wrong=4)), numbers(5), folder=folder, name="b")
    assert len(asked(log)) == 10


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match="this is a file"):
        RunFolder(file)
    with pytest.raises(InputError, match=r"holds something else \(file\)"):
        RunFolder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    with sqlite3.connect(foreign / DATABASE) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    with pytest.raises(InputError, match="not one of graft's"):
        RunFolder(foreign)


def test_another_format_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path).close()
    database = sqlite3.connect(tmp_path / DATABASE)
    database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(InputError, match="format 9, and this version of graft reads 1"):
        RunFolder(tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with RunFolder(tmp_path), pytest.raises(RunError, match="another process is evaluating into this folder"):
        RunFolder(tmp_path)
    RunFolder(tmp_path).close()


def test_a_damaged_database_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match=DATABASE):
        RunFolder(tmp_path)


def test_a_creation_that_was_stopped_is_taken_up(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()
    with RunFolder(tmp_path) as store:
        store.add("a", WHOLE)
        assert store.outcomes("a") == {"q": WHOLE}
