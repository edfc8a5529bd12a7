from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rag.core.errors import CorpusLocked, GraftError, ModelUnavailable, NodeTimeout
from rag.core.trace import Span
from rag.serve.errors import RequestError
from rag.serve.observe.metrics import Metrics, kind_of
from tests.rag.serve.observe.parts import value


@pytest.fixture
def metrics() -> Metrics:
    return Metrics({"graft": ["search", "answer"]})


def test_two_applications_do_not_mix(metrics: Metrics) -> None:
    other = Metrics({"graft": []})
    metrics.request_ended("/v1/models", "GET", 200, 0.1)
    assert value(metrics, "http_requests_total", route="/v1/models", method="GET", status="200") == 1
    assert value(other, "http_requests_total", route="/v1/models", method="GET", status="200") == 0


def test_names_that_a_caller_makes_up_are_other(metrics: Metrics) -> None:
    for number in range(50):
        model = f"evil{number}"
        metrics.failed(model, ModelUnavailable("down"))
        metrics.answered(model, seconds=1, first=1, stream=True, characters=1)
        metrics.left(model)
        metrics.queued(model, 1)
        metrics.wrote(model, 1)
        metrics.traced(model, Span("request", counts={"calls": 1}, children=[Span(f"evil{number}", seconds=1)]))
        metrics.request_ended("other", f"EVIL{number}", 404, 1)
    metrics.traced("graft", Span("request", children=[Span("evil", seconds=1.0)]))
    text = metrics.text().decode()
    assert "evil" not in text.lower()
    assert value(metrics, "runs_total", model_name="other", outcome="failed") == 50
    metrics.serving("evil0", [])
    metrics.left("evil0")
    assert value(metrics, "runs_total", model_name="evil0", outcome="left") == 1


def test_the_text_parses_and_has_the_names_that_operators_of_vllm_know(metrics: Metrics) -> None:
    metrics.watch_queue(running=lambda: 3, waiting=lambda: 2, refused=lambda: 5)
    metrics.answered("graft", seconds=2, first=0.2, stream=True, characters=100)
    metrics.wrote("graft", 0.02)
    metrics.traced("graft", Span("request", counts={"calls": 1, "prompt_tokens": 40, "generated_tokens": 12}))
    families = {family.name: family for family in text_string_to_metric_families(metrics.text().decode())}
    for name in ("time_to_first_token_seconds", "time_per_output_token_seconds", "e2e_request_latency_seconds"):
        assert families[f"graft_{name}"].type == "histogram"
    for name in ("num_requests_running", "num_requests_waiting"):
        assert families[f"graft_{name}"].type == "gauge"
    for name in ("prompt_tokens", "generation_tokens", "refused_requests"):
        assert families[f"graft_{name}"].type == "counter"
    samples = {sample.name: sample.value for family in families.values() for sample in family.samples}
    assert samples["graft_num_requests_running"] == 3
    assert samples["graft_num_requests_waiting"] == 2
    assert samples["graft_refused_requests_total"] == 5
    assert samples["graft_prompt_tokens_total"] == 40
    assert samples["process_resident_memory_bytes"] > 1e6


def test_jobs_are_asked_for_when_somebody_looks(metrics: Metrics) -> None:
    jobs = {("upload", "running"): 1}
    metrics.watch_jobs(lambda: jobs)
    jobs[("upload", "done")] = 4
    assert value(metrics, "jobs", kind="upload", status="running") == 1
    assert value(metrics, "jobs", kind="upload", status="done") == 4


def test_a_watched_part_that_fails_does_not_fail_the_scrape(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> float:
        raise OSError("the jobs' file is gone")

    metrics.watch_queue(running=broken, waiting=broken, refused=broken)
    metrics.watch_jobs(lambda: {("upload", "done"): 4})
    text = metrics.text().decode()
    assert 'graft_jobs{kind="upload",status="done"} 4.0' in text
    assert "num_requests_waiting" not in text
    assert "cannot be told" in caplog.text


def test_only_the_outermost_retrieval_counts_and_none_that_failed(metrics: Metrics) -> None:
    index = Span("search", output="2 Hit", seconds=0.25, counts={"searches": 1})
    call = Span("call search", {"query": "x"}, seconds=0.5, children=[index])
    failed = Span("call search", {"query": "x"}, seconds=9, error="CorpusLocked: busy")
    metrics.traced("graft", Span("request", children=[Span("answer", seconds=1, children=[call, failed]), index]))
    assert value(metrics, "retrieval_seconds_count", model_name="graft") == 2
    assert value(metrics, "retrieval_seconds_sum", model_name="graft") == 0.75
    assert value(metrics, "retrieval_hits_sum", model_name="graft") == 4
    assert value(metrics, "node_seconds_count", model_name="graft", node="search") == 2


def test_work_that_is_still_open_has_no_time_yet(metrics: Metrics) -> None:
    metrics.traced("graft", Span("request", children=[Span("answer", children=[Span("call search", {"query": "x"})])]))
    assert value(metrics, "node_seconds_count", model_name="graft", node="answer") == 0
    assert value(metrics, "retrieval_seconds_count", model_name="graft") == 0


def test_kinds_of_errors() -> None:
    class Cut(ModelUnavailable):
        pass

    errors = (Cut("x"), CorpusLocked("x"), NodeTimeout("x", "a"), GraftError("x"), KeyError("x"), RequestError(429, "x"))
    kinds = [kind_of(error) for error in errors]
    assert kinds == ["ModelUnavailable", "CorpusLocked", "NodeTimeout", "GraftError", "other", "other"]
