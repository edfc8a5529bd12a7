"""How vLLM talks to both sides, without a server: its roles, what is sent between them, and its metrics."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed")
prometheus = pytest.importorskip("prometheus_client")

from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole  # noqa: E402

from generators.models.vllm_contexts import connector  # noqa: E402
from generators.models.vllm_contexts.certificate import label_of  # noqa: E402
from generators.models.vllm_contexts.connector import ContextConnector, ContextStats  # noqa: E402
from generators.models.vllm_contexts.metrics import Counted, counted  # noqa: E402
from generators.models.vllm_contexts.served import Served  # noqa: E402
from rag.core.errors import ConfigError, CorpusMismatch  # noqa: E402
from tests.generators.models.vllm_contexts.conftest import MODEL, TEXTS, Asked, prompt  # noqa: E402
from tests.generators.models.vllm_contexts.test_worker import PAGE, PAGES, PlainLayer, expected, slots  # noqa: E402

A, B, _ = TEXTS.values()


def config(*stores: Path, **changes: Any) -> Any:
    settings = {"stores": [{"path": str(path)} for path in stores], "ram_bytes": 0}
    made = SimpleNamespace(
        kv_transfer_config=SimpleNamespace(kv_connector_extra_config=settings, is_kv_producer=False),
        cache_config=SimpleNamespace(cache_dtype="auto", block_size=PAGE),
        model_config=SimpleNamespace(dtype=torch.float32, model="folder", tokenizer="folder", revision=None),
        parallel_config=SimpleNamespace(tensor_parallel_size=1, pipeline_parallel_size=1),
    )
    for name, change in changes.items():
        setattr(made, name, SimpleNamespace(**{**vars(getattr(made, name)), **change}))
    return made


@pytest.fixture
def roles(served: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[ContextConnector, ContextConnector]]:
    """Makes the scheduler's and the worker's connector of a configuration."""
    monkeypatch.setattr(connector, "served_model", lambda *given: served)

    def make(made: Any) -> tuple[ContextConnector, ContextConnector]:
        scheduler, worker = (ContextConnector(made, role, None) for role in (KVConnectorRole.SCHEDULER, KVConnectorRole.WORKER))
        worker.register_kv_caches({f"model.layers.{number}.self_attn.attn": torch.zeros(1) for number in (2, 0, 1)})
        return scheduler, worker

    return make


class Step:
    """One step of an engine with one request."""

    def __init__(self, scheduler: ContextConnector, worker: ContextConnector) -> None:
        self.scheduler, self.worker = scheduler, worker
        self.layers = [PlainLayer() for _ in range(MODEL.layers)]

    def __call__(self, request: Asked) -> set[int]:
        tokens, asynchronous = self.scheduler.get_num_new_matched_tokens(request, 0)
        assert asynchronous is False
        assert tokens is not None
        blocks = SimpleNamespace(get_block_ids=lambda: (list(PAGES),))
        self.scheduler.update_state_after_alloc(request, blocks, tokens)
        sent = pickle.loads(pickle.dumps(self.scheduler.build_connector_meta(None)))
        self.worker.bind_connector_metadata(sent)
        named = {f"model.layers.{number}.self_attn.attn": layer for number, layer in enumerate(self.layers)}
        self.worker.start_load_kv(SimpleNamespace(no_compile_layers=named))
        bad = self.worker.get_block_ids_with_load_errors()
        told = pickle.loads(pickle.dumps(self.worker.build_connector_worker_meta()))
        self.scheduler.update_connector_output(SimpleNamespace(kv_connector_worker_meta=told))
        self.worker.clear_connector_metadata()
        return bad


def test_a_request_goes_through_both_roles(roles: Any, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, worker = roles(config(store))
    step, request = Step(scheduler, worker), ask(B, A)
    scheduler.on_new_request(request)
    assert step(request) == set()
    keys, values = expected(B, A)
    for number, layer in enumerate(step.layers):  # the layers' order is that of their numbers
        torch.testing.assert_close(layer.kv_cache[slots(0, 10), 0], keys[number], atol=1e-6, rtol=0)
        torch.testing.assert_close(layer.kv_cache[slots(0, 10), 1], values[number])
    stats = [each.get_kv_connector_stats() for each in (worker, scheduler)]
    assert stats[0].aggregate(stats[1]).to_dict() == {"requests": 1, "tokens": 10, "fallbacks": {}}
    assert [each.get_kv_connector_stats() for each in (worker, scheduler)] == [None, None]
    end = prompt(B, A)[1][-1]
    assert scheduler.request_finished(request, []) == (False, {"graft": {"stitched": end, "loaded": end, "fallback": None}})


def test_what_a_worker_could_not_load_comes_back(roles: Any, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, worker = roles(config(store))
    step, request, other = Step(scheduler, worker), ask(B, A), ask(A)
    scheduler.on_new_request(request)
    shutil.rmtree(store / "segments")
    assert step(request) == set(PAGES)
    assert worker.build_connector_worker_meta() is None
    assert worker.get_block_ids_with_load_errors() == set()
    scheduler.on_new_request(other)
    assert step(other) == set()
    found = scheduler.get_kv_connector_stats()
    assert found is not None
    assert found.to_dict() == {"requests": 1, "tokens": 0, "fallbacks": {"damaged": 2}}
    assert found.reduce() == {"prompts from contexts": 1, "tokens loaded": 0, "read in full (damaged)": 2}


def test_a_step_without_loads_touches_nothing(roles: Any, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, worker = roles(config(store))
    request = ask(A, params={})
    scheduler.on_new_request(request)
    assert Step(scheduler, worker)(request) == set()
    assert scheduler.request_finished(request, []) == (False, None)
    assert scheduler.requires_kv_delivery is False


def test_what_cannot_work_ends_the_start(roles: Any, store: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="stores"):
        roles(config())
    for parallel in ({"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2}):
        with pytest.raises(ConfigError, match="parallelism"):
            roles(config(store, parallel_config=parallel))
    _, worker = roles(config(store))
    with pytest.raises(ConfigError, match="3 layers, and this engine keeps a cache of 1"):
        worker.register_kv_caches({"model.layers.0.self_attn.attn": torch.zeros(1)})
    monkeypatch.setattr(connector, "served_model", lambda *given: replace(served, identity=replace(served.identity, weights="v" * 64)))
    with pytest.raises(CorpusMismatch, match="weights"):
        roles(config(store))


def test_a_quantised_cache_reads_in_full(roles: Any, store: Path, ask: Callable[..., Asked]) -> None:
    for cache_dtype, reason in (("fp8", {"dtype": 1}), ("float32", {}), ("auto", {})):
        scheduler, _ = roles(config(store, cache_config={"cache_dtype": cache_dtype}))
        scheduler.on_new_request(ask(A))
        found = scheduler.get_kv_connector_stats()
        assert (found.to_dict()["fallbacks"] if found else {}) == reason


def test_the_servers_page_has_what_was_counted(store: Path, tmp_path: Path) -> None:
    import vllm
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

    registry = CollectorRegistry()

    def of(kind: Any) -> Any:
        return lambda name, documentation, labelnames: kind(name, documentation, labelnames, registry=registry)

    kinds = {Counter: of(Counter), Gauge: of(Gauge), Histogram: of(Histogram)}
    made = config(store, tmp_path / "none")
    metrics = ContextConnector.build_prom_metrics(made, kinds, ["model_name", "engine"], {0: ["tiny", "0"], 1: ["tiny", "1"]})
    for engine, counts in (
        (0, {"requests": 2, "tokens": 30, "fallbacks": {"absent": 1}}),
        (1, {"requests": 1, "tokens": 5, "fallbacks": {"absent": 2, "claim": 1}}),
        (0, ContextStats().to_dict()),
    ):
        metrics.observe(counts, engine)
    found = counted(generate_latest(registry).decode())
    assert found == Counted(3, 35, {"absent": 3, "claim": 1}, vllm.__version__, "float32", frozenset({label_of(MODEL)}))


def test_counts_add_up_and_start_anew() -> None:
    one = ContextStats({"requests": 1, "tokens": 2, "fallbacks": {"a": 1}})
    one.aggregate(ContextStats({"requests": 3, "tokens": 4, "fallbacks": {"a": 1, "b": 1}}))
    assert pickle.loads(pickle.dumps(one)).to_dict() == {"requests": 4, "tokens": 6, "fallbacks": {"a": 2, "b": 1}}
    assert not one.is_empty()
    one.reset()
    assert one.is_empty()
    assert ContextConnector.build_kv_connector_stats() == ContextStats()
    assert ContextConnector.build_kv_connector_stats(one.to_dict()) == one
