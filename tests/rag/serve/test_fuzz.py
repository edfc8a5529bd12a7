"""The server against requests made up from its own OpenAPI document: valid ones, and ones that are wrong in some way.

``GRAFT_FUZZ=300 pytest tests/rag/serve/test_fuzz.py`` sends so many to each operation instead of a few.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

schemathesis = pytest.importorskip("schemathesis")

from fastapi import FastAPI  # noqa: E402
from hypothesis import HealthCheck, Phase, settings  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from adapters.registry import Registry  # noqa: E402
from rag.serve.app import create_app  # noqa: E402
from rag.serve.settings import Uploads  # noqa: E402
from retrievers.corpus import Corpus  # noqa: E402
from tests.rag.serve.parts import listening, pipeline  # noqa: E402

EXAMPLES = int(os.environ.get("GRAFT_FUZZ", "5"))
# A schema cannot say all that is checked (a question that is not blank), and what is too large is 413, not 400.
BEYOND_THE_SCHEMA = [checks.positive_data_acceptance, checks.negative_data_rejection]


def served(folder: Path) -> FastAPI:
    """Everything that a server may have, over a scripted model."""
    uploads = Uploads(Corpus(folder / "corpus"), folder / "spool")
    return create_app(pipeline(), uploads=uploads, adapters=Registry(folder / "registry"))


def document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return dict(TestClient(served(Path(folder))).get("/openapi.json").json())


schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fuzz")
    Corpus.create(folder / "corpus", encoder=None)
    with listening(served(folder)) as url:
        yield url
        counted = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("graft_http_requests_total{")]
        print(f"{sum(float(line.rsplit(' ', 1)[1]) for line in counted):,.0f} requests")  # with pytest -s


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_no_request_breaks_the_server_and_every_answer_is_as_documented(case: Any, address: str) -> None:
    reply = case.call(base_url=address, timeout=30)
    case.validate_response(reply, excluded_checks=BEYOND_THE_SCHEMA)
    if reply.status_code >= 400:
        assert set(reply.json()) == {"error"}
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
