"""`ContextConnector`, which vLLM 0.32 loads by ``--kv-transfer-config``: stored contexts in place of the computation of a prompt.

The only module of the package that imports vLLM: both sides of the connector are elsewhere, and this is how vLLM talks to them.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import vllm
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
)
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorPromMetrics, KVConnectorStats, PromMetric, PromMetricT
from vllm.model_executor.models.utils import extract_layer_index

from generators.models.vllm_contexts.certificate import label_of
from generators.models.vllm_contexts.metrics import FALLBACKS, INFO, REQUESTS, TOKENS
from generators.models.vllm_contexts.scheduler import Load, SchedulerSide
from generators.models.vllm_contexts.served import Served, served_model
from generators.models.vllm_contexts.shelves import Catalogue, Settings, Shelves, settings_of
from generators.models.vllm_contexts.worker import WorkerSide
from rag.core.errors import ConfigError, CorpusError
from retrievers.context.manifest import read_manifest

_log = logging.getLogger("graft.contexts")


@dataclass
class Loads(KVConnectorMetadata):
    """From the scheduler to the workers, each step."""

    loads: tuple[Load, ...] = ()


@dataclass
class Failures(KVConnectorWorkerMetadata):
    """From the workers to the scheduler: requests that could not be loaded."""

    requests: frozenset[str] = frozenset()

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        """Those of both."""
        return Failures(self.requests | other.requests) if isinstance(other, Failures) else self


@dataclass
class ContextStats(KVConnectorStats):
    """Counts since the last step."""

    data: dict[str, Any] = field(default_factory=lambda: {"requests": 0, "tokens": 0, "fallbacks": {}})

    def reset(self) -> None:
        """Forget all."""
        self.data = {"requests": 0, "tokens": 0, "fallbacks": {}}

    def aggregate(self, other: KVConnectorStats) -> KVConnectorStats:
        """Add what ``other`` counted."""
        added = Counter(self.data["fallbacks"])
        added.update(other.data["fallbacks"])
        self.data = {
            "requests": self.data["requests"] + other.data["requests"],
            "tokens": self.data["tokens"] + other.data["tokens"],
            "fallbacks": dict(added),
        }
        return self

    def reduce(self) -> dict[str, int | float]:
        """For vLLM's log."""
        fallbacks = {f"read in full ({reason})": number for reason, number in self.data["fallbacks"].items()}
        return {"prompts from contexts": self.data["requests"], "tokens loaded": self.data["tokens"], **fallbacks}

    def is_empty(self) -> bool:
        """Whether nothing was counted."""
        return not (self.data["requests"] or self.data["tokens"] or self.data["fallbacks"])


class ContextMetrics(KVConnectorPromMetrics):
    """The same counts among the server's metrics, and a gauge that says which stores it takes, for `check`."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        metric_types: dict[type[PromMetric], type[PromMetricT]],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        counter: Any = self._counter_cls
        gauge: Any = self._gauge_cls
        self._requests = counter(REQUESTS, "Prompts whose contexts came from a store.", labelnames)
        self._tokens = counter(TOKENS, "Tokens of contexts loaded from a store.", labelnames)
        self._fallbacks = counter(FALLBACKS, "Prompts with borders that were read in full, by reason.", [*labelnames, "reason"])
        info = gauge(INFO, "The server's stores of contexts: 1 for each.", [*labelnames, "version", "dtype", "identity"])
        for values in per_engine_labelvalues.values():
            self._requests.labels(*values)
            self._tokens.labels(*values)
            for label in _labels(_settings(vllm_config)):
                info.labels(*values, vllm.__version__, _dtype_name(vllm_config), label).set(1)

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        """Add a step's counts."""
        values = self.per_engine_labelvalues[engine_idx]
        self._requests.labels(*values).inc(transfer_stats_data["requests"])
        self._tokens.labels(*values).inc(transfer_stats_data["tokens"])
        for reason, number in transfer_stats_data["fallbacks"].items():
            self._fallbacks.labels(*values, reason).inc(number)


class ContextConnector(KVConnectorBase_V1):
    """Both of vLLM's roles. ``kv_connector_extra_config`` is a `Settings`; ``kv_role`` is "kv_consumer".

    A configuration that cannot work ends the start with `ConfigError` or `CorpusMismatch`; a store that is not there or damaged does not:
    its prompts are read in full until it is.
    """

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        settings, served = _settings(vllm_config), _served(vllm_config)
        self._scheduler: SchedulerSide | None = None
        self._worker: WorkerSide | None = None
        self._names: list[str] = []
        self._failed: dict[str, frozenset[int]] = {}
        if role is KVConnectorRole.SCHEDULER:
            catalogue = Catalogue(settings, Shelves(served, 0))
            for words in catalogue.check_start():
                _log.warning("prompts of this store are read in full: %s", words)
            exact = vllm_config.cache_config.cache_dtype in ("auto", _dtype_name(vllm_config))
            self._scheduler = SchedulerSide(catalogue, None if exact else "dtype")
        else:
            page, dtype = vllm_config.cache_config.block_size, getattr(torch, _dtype_name(vllm_config))
            self._layers = served.identity.layers
            self._worker = WorkerSide(Shelves(served, settings.ram_bytes), page, dtype)

    # the worker's

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Note the order of the layers. Raises `ConfigError` if they are not those of the model."""
        self._names = sorted(kv_caches, key=extract_layer_index)
        if len(self._names) != self._layers:
            raise ConfigError(f"contexts are stored for {self._layers} layers, and this engine keeps a cache of {len(self._names)}")

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Write what the scheduler promised, before the forward pass."""
        metadata = self._get_connector_metadata()
        if self._worker is not None and isinstance(metadata, Loads) and metadata.loads:
            layers = [forward_context.no_compile_layers[name] for name in self._names]
            self._worker.load(metadata.loads, layers)
            self._failed = self._worker.failures()

    def wait_for_layer_load(self, layer_name: str) -> None:
        """All is written before the first layer."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing is saved: stores are built by `rag contexts build`."""

    def wait_for_save(self) -> None:
        """There is nothing to wait for."""

    def get_block_ids_with_load_errors(self) -> set[int]:
        """The cache's blocks that were promised and not written."""
        return {page for pages in self._failed.values() for page in pages}

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        """The requests that they belong to."""
        failed, self._failed = self._failed, {}
        return Failures(frozenset(failed)) if failed else None

    # the scheduler's

    def on_new_request(self, request: Any) -> None:
        """Plan it."""
        if self._scheduler is not None:
            self._scheduler.arrived(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        """Tokens to load, before this very step."""
        return (self._scheduler.matched(request, num_computed_tokens) if self._scheduler else 0), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Note where they go."""
        if self._scheduler is not None:
            self._scheduler.allocated(request, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        """What this step's workers write."""
        return Loads(self._scheduler.loads() if self._scheduler else ())

    def update_connector_output(self, connector_output: Any) -> None:
        """Hear what they could not."""
        told = connector_output.kv_connector_worker_meta
        if self._scheduler is not None and isinstance(told, Failures):
            self._scheduler.failed(told.requests)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Tell the caller what became of its borders; its blocks are free."""
        return False, self._scheduler.finished(request) if self._scheduler else None

    # of both

    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        """What was counted since the last step."""
        if self._scheduler is not None:
            requests, fallbacks = self._scheduler.counts()
            stats = ContextStats({"requests": requests, "tokens": 0, "fallbacks": fallbacks})
        else:
            stats = ContextStats({"requests": 0, "tokens": self._worker.counts() if self._worker else 0, "fallbacks": {}})
        return None if stats.is_empty() else stats

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> KVConnectorStats | None:
        """Counts that came from another process."""
        return ContextStats(data) if data else ContextStats()

    @classmethod
    def build_prom_metrics(
        cls,
        vllm_config: VllmConfig,
        metric_types: dict[type[PromMetric], type[PromMetricT]],
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> KVConnectorPromMetrics:
        """Of the server."""
        return ContextMetrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)


def _settings(config: VllmConfig) -> Settings:
    if config.kv_transfer_config is None:
        raise ConfigError("the connector of contexts needs --kv-transfer-config")
    return settings_of(config.kv_transfer_config.kv_connector_extra_config)


def _served(config: VllmConfig) -> Served:
    parallel = config.parallel_config
    if parallel.tensor_parallel_size * parallel.pipeline_parallel_size != 1:
        raise ConfigError("contexts are loaded by one worker: serve without tensor and pipeline parallelism")
    model = config.model_config
    return served_model(model.model, model.tokenizer, model.revision)


def _dtype_name(config: VllmConfig) -> str:
    return str(config.model_config.dtype).removeprefix("torch.")


def _labels(settings: Settings) -> list[str]:
    """Of the models whose stores are there now."""
    found = set()
    for store in settings.stores:
        try:
            found.add(label_of(read_manifest(Path(store.path)).model))
        except CorpusError as error:
            _log.warning("%s", error)
    return sorted(found)
