from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from retrievers.context.store import text_hash
from tests.rag.cli.conftest import Rag
from tests.retrievers.context.fake import built, contexts


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the command hands to uvicorn, which is not started."""
    import uvicorn

    given: dict[str, Any] = {}
    loggers = [logging.getLogger(name) for name in (None, "graft", "uvicorn", "uvicorn.access")]
    before = [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: given.update(options, app=app))
    yield given
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate


@pytest.fixture
def store(tmp_path: Path) -> Path:
    built(tmp_path / "store", 3)
    return tmp_path / "store"


def test_a_store_is_served_to_this_machine(rag: Rag, store: Path, served: dict[str, Any]) -> None:
    result = rag("contexts", "serve", store)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (served["host"], served["port"], served["access_log"]) == ("127.0.0.1", 8090, False)
    with TestClient(served["app"], base_url="http://localhost") as http:
        assert http.get("/v1/contexts").json()["passages"] == 3
        (id, text), *_ = contexts(3)
        assert http.get("/v1/contexts/passage", params={"id": id, "text": text_hash(text)}).status_code == 200
        assert http.get("/v1/contexts", headers={"Host": "evil.example"}).status_code == 421


def test_others_need_a_key(rag: Rag, store: Path, served: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    result = rag("contexts", "serve", store, "--host", "0.0.0.0")
    assert (result.exit_code, served) == (2, {})
    assert "without a key only this machine is served" in result.stderr
    monkeypatch.setenv("SHELF_KEY", "secret-value-that-is-long")
    assert rag("contexts", "serve", store, "--host", "0.0.0.0", "--api-key-env", "SHELF_KEY").exit_code == 0
    assert TestClient(served["app"]).get("/v1/contexts").status_code == 401


def test_what_is_no_store_is_told(rag: Rag, tmp_path: Path, served: dict[str, Any]) -> None:
    result = rag("contexts", "serve", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "there is no store of contexts here" in result.stderr
    assert served == {}
