from __future__ import annotations

import asyncio
import time

import pytest

from rag.core.engine import Run
from rag.core.errors import ModelRefused, ModelUnavailable, NodeError
from rag.core.trace import Span
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.recorder import Recorder
from tests.rag.serve.observe.parts import value
from tests.rag.serve.parts import TEXT, pipeline


def run(answer: str = "yes", *, calls: int = 1, generated: int = 11) -> Run:
    return Run(0, Span("pipeline", counts={"calls": calls, "generated_tokens": generated}), None, answer)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({"graft": ["search", "answer"]})


def test_a_streamed_answer_has_a_first_token_and_a_pace(metrics: Metrics) -> None:
    recorder = Recorder(metrics)
    recorder.started("graft", stream=True)
    assert value(metrics, "num_requests_running") == 1
    time.sleep(0.02)
    recorder.first_token()
    time.sleep(0.05)
    recorder.first_token()
    recorder.finished(run())
    recorder.close()
    labels = {"model_name": "graft"}
    first = value(metrics, "time_to_first_token_seconds_sum", **labels, stream="true")
    whole = value(metrics, "e2e_request_latency_seconds_sum", **labels)
    assert first >= 0.02
    assert whole >= first + 0.05
    assert value(metrics, "time_per_output_token_seconds_sum", **labels) == pytest.approx((whole - first) / 10)
    assert value(metrics, "runs_total", **labels, outcome="answered") == 1
    assert value(metrics, "runs_total", **labels, outcome="left") == 0
    assert value(metrics, "answer_characters_sum", **labels) == 3
    assert value(metrics, "num_requests_running") == 0


def test_a_whole_answer_has_its_first_token_at_its_end(metrics: Metrics) -> None:
    recorder = Recorder(metrics)
    recorder.started("graft")
    time.sleep(0.01)
    recorder.finished(run())
    first = value(metrics, "time_to_first_token_seconds_sum", model_name="graft", stream="false")
    assert first == value(metrics, "e2e_request_latency_seconds_sum", model_name="graft") >= 0.01
    assert value(metrics, "time_per_output_token_seconds_count", model_name="graft") == 0


def test_a_pace_is_told_only_where_one_call_wrote_all(metrics: Metrics) -> None:
    for outcome in (run(calls=2), run(generated=1), run(calls=0, generated=0)):
        recorder = Recorder(metrics)
        recorder.started("graft", stream=True)
        recorder.first_token()
        recorder.finished(outcome)
    assert value(metrics, "time_to_first_token_seconds_count", model_name="graft", stream="true") == 3
    assert value(metrics, "time_per_output_token_seconds_count", model_name="graft") == 0


def test_a_question_ends_once(metrics: Metrics) -> None:
    recorder = Recorder(metrics)
    recorder.started("graft")
    recorder.failed(ModelUnavailable("down"))
    recorder.failed(ModelRefused("no"))
    recorder.finished(run())
    recorder.close()
    outcomes = {name: value(metrics, "runs_total", model_name="graft", outcome=name) for name in ("answered", "failed", "left")}
    assert outcomes == {"answered": 0, "failed": 1, "left": 0}
    assert value(metrics, "run_failures_total", model_name="graft", kind="ModelUnavailable") == 1
    assert value(metrics, "num_requests_running") == 0


def test_a_run_with_an_error_failed(metrics: Metrics) -> None:
    recorder = Recorder(metrics)
    recorder.started("graft")
    recorder.finished(Run(0, Span("pipeline"), NodeError("it failed", "answer")))
    assert value(metrics, "run_failures_total", model_name="graft", kind="NodeError") == 1
    assert value(metrics, "e2e_request_latency_seconds_count", model_name="graft") == 0


def test_waiting_is_told_once_the_turn_has_come(metrics: Metrics) -> None:
    recorder = Recorder(metrics)
    recorder.started("graft")
    time.sleep(0.01)
    recorder.admitted()
    assert value(metrics, "request_queue_time_seconds_sum", model_name="graft") >= 0.01


def test_the_trace_of_a_real_run_gives_tokens_retrievals_and_nodes(metrics: Metrics) -> None:
    done = asyncio.run(pipeline().aexplain("How long?"))
    recorder = Recorder(metrics)
    recorder.started("graft", "How long?")
    recorder.finished(done)
    recorder.close(Span("request", children=[done.trace]))
    labels = {"model_name": "graft"}
    assert value(metrics, "prompt_tokens_total", **labels) == 40
    assert value(metrics, "generation_tokens_total", **labels) == 12
    assert value(metrics, "model_calls_total", **labels) == 1
    assert value(metrics, "retrieval_hits_sum", **labels) == value(metrics, "retrieval_hits_count", **labels) == 1
    assert 0 < value(metrics, "retrieval_seconds_sum", **labels) < value(metrics, "node_seconds_sum", **labels, node="answer")
    assert value(metrics, "node_seconds_count", **labels, node="search") == 1
    assert recorder.answer is not None
    assert recorder.answer.text == TEXT
