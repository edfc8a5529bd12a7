from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from generators.models.vllm_contexts.certificate import label_of
from generators.models.vllm_contexts.metrics import Counted, counted, identity_label
from tests.generators.models.vllm_contexts.conftest import MODEL

PAGE = """# HELP vllm:graft_contexts_requests_total Prompts whose contexts came from a store.
# TYPE vllm:graft_contexts_requests_total counter
vllm:graft_contexts_requests_total{engine="0",model_name="smollm2"} 4.0
vllm:graft_contexts_requests_created{engine="0",model_name="smollm2"} 1.7954459e+09
vllm:graft_contexts_tokens_total{engine="0",model_name="smollm2"} 1.5e+06
vllm:graft_contexts_fallbacks_total{engine="0",model_name="smollm2",reason="claim"} 1.0
vllm:graft_contexts_fallbacks_total{engine="1",model_name="smollm2",reason="claim"} 2.0
vllm:graft_contexts_fallbacks_total{engine="0",model_name="smollm2",reason="damaged"} 5.0
vllm:graft_contexts_fallbacks_created{engine="0",model_name="smollm2",reason="damaged"} 1.7954459e+09
vllm:graft_contexts_info{dtype="float32",engine="0",identity="abc",model_name="smollm2",version="0.32.0"} 1.0
vllm:graft_contexts_info{dtype="float32",engine="0",identity="def",model_name="smollm2",version="0.32.0"} 1.0
vllm:num_requests_running{engine="0"} 3.0
"""


def test_a_servers_page_is_read() -> None:
    found = counted(PAGE)
    assert found == Counted(4, 1_500_000, {"claim": 3, "damaged": 5}, "0.32.0", "float32", frozenset({"abc", "def"}))
    assert found.there


@pytest.mark.parametrize("page", ["", "vllm:num_requests_running 3.0\n", "<html>"])
def test_a_server_without_contexts_counts_none(page: str) -> None:
    assert counted(page) == Counted(0, 0, {}, None, None, frozenset())
    assert not counted(page).there


def test_models_have_labels_of_their_own() -> None:
    assert identity_label(asdict(MODEL)) == label_of(MODEL) != label_of(replace(MODEL, adapter="a" * 64))
    assert len(label_of(MODEL)) == 32
