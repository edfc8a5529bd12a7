from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rag.core.errors import ConfigError, InputError
from rag.evaluate.compare import compare
from rag.evaluate.runner import evaluate
from rag.evaluate.store import RunFolder
from rag.evaluate.types import DataSet, Outcome, Question
from tests.rag.evaluate.parts import Counts, Finds, Numbered, asked, numbers, pipeline

ROOT = Path(__file__).parents[3]
QUESTIONS = 400


def run(folder: Path, data: DataSet, node: object, **options: bool | int) -> list[Outcome]:
    return evaluate(pipeline(node), data, folder=folder / "runs", name="one", **options)  # type: ignore[arg-type]


def lasting(outcomes: list[Outcome]) -> list[Outcome]:
    """Without what differs from run to run."""
    return [replace(outcome, seconds=0, first_token=None, trace={}) for outcome in outcomes]


def test_outcomes_are_in_the_order_of_the_data_whatever_is_in_flight(tmp_path: Path) -> None:
    data = numbers(30)
    nodes = [Numbered(str(tmp_path / f"log{n}")) for n in range(3)]
    found = [
        lasting(evaluate(pipeline(node), data, folder=tmp_path / f"runs{n}", name="a", in_flight=n))
        for n, node in zip((1, 7, 64), nodes, strict=True)
    ]
    assert found[0] == found[1] == found[2]
    assert [outcome.answer for outcome in found[0]] == [str(n) for n in range(1, 31)]
    assert [node.most for node in nodes] == [1, 7, 30]
    assert found[0][4].counts == {"calls": 1, "generated_tokens": 5}


def test_a_question_that_fails_is_kept_with_its_error_and_asked_again_only_when_wanted(tmp_path: Path) -> None:
    log, healed = tmp_path / "log", tmp_path / "healed"
    data, node = numbers(20), Numbered(str(log), fails=10, healed=str(healed))
    seen: list[tuple[int, int, int]] = []
    outcomes = evaluate(pipeline(node), data, folder=tmp_path / "runs", name="a", on_progress=lambda *state: seen.append(state))
    assert {o.question: o.error for o in outcomes if o.error} == dict.fromkeys(["q10", "q20"], "ModelUnavailable: the model is down")
    assert outcomes[9].trace["children"][0]["error"] == outcomes[9].error
    assert (seen[0], seen[-1], len(seen)) == ((0, 0, 20), (20, 2, 20), 21)

    healed.touch()
    again = evaluate(pipeline(node), data, folder=tmp_path / "runs", name="a")
    assert (again, len(asked(log))) == (outcomes, 20)
    seen.clear()
    retried = evaluate(pipeline(node), data, folder=tmp_path / "runs", name="a", retry_failed=True, on_progress=lambda *s: seen.append(s))
    assert asked(log)[20:] == ["number 10", "number 20"]
    assert seen == [(18, 2, 20), (19, 1, 20), (20, 0, 20)]
    assert [o.answer for o in retried] == [str(n) for n in range(1, 21)]


def test_a_pipeline_that_fails_on_every_tenth_question_has_its_mean_over_the_rest(tmp_path: Path) -> None:
    data = numbers(100)
    outcomes = run(tmp_path, data, Numbered(str(tmp_path / "log"), wrong=3, fails=10))
    result = compare(data, {"one": outcomes}, ["exact_match"]).results[0]
    right = sum(n % 3 != 0 for n in range(1, 101) if n % 10)
    assert result.failed == 10
    mean = result.means["exact_match"]
    assert mean is not None
    assert mean.mean == pytest.approx(right / 90)
    assert mean.n == 90
    assert [score is None for score in result.scores["exact_match"]] == [n % 10 == 0 for n in range(1, 101)]


def killed_after(calls: int, folder: Path, log: Path) -> None:
    """Run `session` in a process of its own and kill it as soon as its model has been called ``calls`` more times."""
    before = len(asked(log))
    code = f"from tests.rag.evaluate.test_runner import session; session({str(folder)!r}, {str(log)!r})"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        while process.poll() is None and len(asked(log)) < before + calls:
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -9, "the run ended before it was killed"


def session(folder: str, log: str) -> None:
    evaluate(pipeline(Numbered(log, wrong=3, fails=10)), numbers(QUESTIONS), folder=folder, name="one", in_flight=4)


def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    log, folder, moments = tmp_path / "log", tmp_path / "runs", random.Random(3)
    kept: set[str] = set()
    for _ in range(3):
        start = len(asked(log))
        killed_after(moments.randint(20, 60), folder, log)
        assert not kept & set(asked(log)[start:]), "a question that had its outcome was asked again"
        with RunFolder(folder) as store:
            kept = {f"number {id[1:]}" for id in store.outcomes("one")}
        assert len(set(asked(log)) - kept) <= 4, "more was lost than was in flight"
    assert 20 < len(kept) < QUESTIONS

    start = len(asked(log))
    data, whole = numbers(QUESTIONS), tmp_path / "whole"
    resumed = evaluate(pipeline(Numbered(str(log), wrong=3, fails=10)), data, folder=folder, name="one", in_flight=4)
    assert sorted(asked(log)[start:]) == sorted({q.question for q in data.questions} - kept)
    unbroken = evaluate(pipeline(Numbered(str(tmp_path / "other"), wrong=3, fails=10)), data, folder=whole, name="one")
    assert lasting(resumed) == lasting(unbroken)
    names = ["exact_match", "generated_tokens"]
    assert compare(data, {"a": resumed}, names).results[0].means == compare(data, {"a": unbroken}, names).results[0].means


def test_an_interrupt_keeps_what_is_there(tmp_path: Path) -> None:
    log, main = tmp_path / "log", threading.get_ident()

    def stop(finished: int, failed: int, total: int) -> None:
        if finished == 5:
            signal.pthread_kill(main, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        evaluate(pipeline(Numbered(str(log))), numbers(40), folder=tmp_path / "runs", name="a", in_flight=2, on_progress=stop)
    with RunFolder(tmp_path / "runs") as store:
        kept = store.outcomes("a")
        assert 5 <= len(kept) <= 20
        assert store.rate("a") is not None
    start = len(asked(log))
    assert start <= len(kept) + 2
    evaluate(pipeline(Numbered(str(log))), numbers(40), folder=tmp_path / "runs", name="a")
    assert len(asked(log)) == start + 40 - len(kept)


def test_hits_and_text_are_outcomes_and_what_is_neither_is_a_failure(tmp_path: Path) -> None:
    data = numbers(1)
    hits = run(tmp_path, data, Finds(["b:1", "a:2", "b:1"]))
    assert (hits[0].retrieved, hits[0].answer) == (("b:1", "a:2", "b:1"), "")

    by_document = replace(data, questions=[Question("q1", "number 1", gold=("a",))])
    found = evaluate(pipeline(Finds(["b:1", "a:2", "a:3"])), by_document, folder=tmp_path / "documents", name="one")
    assert found[0].retrieved == ("b", "a")

    two = pipeline(Numbered(str(tmp_path / "log")), Numbered(str(tmp_path / "log")))
    both = evaluate(two, data, folder=tmp_path / "two", name="one")
    assert both[0].error == "the pipeline ended in a dict of answer, answer1; an answer, text or a list of hits can be evaluated"


def test_time_to_the_first_token_is_measured_for_each_question_when_wanted(tmp_path: Path) -> None:
    node = Numbered(str(tmp_path / "log"), stream=True)
    outcomes = evaluate(pipeline(node), numbers(12), folder=tmp_path / "a", name="one", in_flight=5, first_token=True)
    assert all(outcome.first_token is not None and 0 < outcome.first_token <= outcome.seconds for outcome in outcomes)
    assert all(outcome.first_token is None for outcome in evaluate(pipeline(node), numbers(12), folder=tmp_path / "b", name="one"))
    with pytest.raises(InputError, match="first_token: 'true' then, 'false' now"):
        evaluate(pipeline(node), numbers(12), folder=tmp_path / "a", name="one")


def answer(question: str) -> str:
    return question


def test_what_cannot_be_evaluated_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    data, node = numbers(3), Numbered(str(tmp_path / "log"))
    with pytest.raises(ConfigError, match="not a registered component"):
        run(tmp_path, data, answer)
    with pytest.raises(InputError, match="no questions"):
        run(tmp_path, replace(data, questions=[]), node)
    with pytest.raises(InputError, match="two questions have the id 'q1'"):
        run(tmp_path, replace(data, questions=[*data.questions, data.questions[0]]), node)
    with pytest.raises(InputError, match=r"'answer\.hits' takes"):
        run(tmp_path, data, Counts())
    assert not (tmp_path / "runs").exists()
    assert asked(tmp_path / "log") == []
