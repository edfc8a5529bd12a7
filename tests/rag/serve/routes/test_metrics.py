from __future__ import annotations

from starlette.testclient import TestClient

from tests.rag.serve.observe.parts import KEY, observed


def test_metrics_are_text_behind_the_key() -> None:
    app, _ = observed(key=KEY)
    client = TestClient(app)
    assert client.get("/metrics").status_code == 401
    reply = client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"})
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'graft_http_requests_total{method="GET",route="/metrics",status="401"} 1.0' in reply.text
    assert "graft_http_requests_in_flight 1.0" in reply.text


def test_a_question_shows() -> None:
    client = TestClient(observed()[0])
    client.post("/ask/ann", json={"question": "How long?"})
    text = client.get("/metrics").text
    assert 'graft_runs_total{model_name="graft",outcome="answered"} 1.0' in text
    assert 'graft_node_seconds_count{model_name="graft",node="answer"} 1.0' in text
    assert 'graft_http_request_duration_seconds_count{route="/ask/{user}"} 1.0' in text
