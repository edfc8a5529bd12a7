"""What the processes of one server count together: prometheus_client's files, one of each process and kind, in a folder.

Counters and histograms are written there as they are. What is only asked for when somebody looks is written every second.
Source: https://prometheus.github.io/client_python/multiprocess/
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from rag.core.errors import InputError

log = logging.getLogger("graft.serve")

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
EVERY = 1.0
"""Seconds."""

_NO_SUM = frozenset({"process_start_time_seconds", "process_max_fds"})
"""Of several processes their sum says nothing."""

_Series = tuple[tuple[str, str], ...]


class Shared:
    """The sums over all processes that count in ``folder``; ``asked`` are this one's collectors that keep no numbers of their own.

    Raises `InputError` unless the process was started with `VARIABLE` set to the folder, which prometheus_client reads when it is loaded.
    """

    def __init__(self, folder: Path, asked: Sequence[Collector]) -> None:
        if not getattr(values.ValueClass, "_multiprocess", False):
            raise InputError(f"metrics are shared by processes that are started with {VARIABLE}={folder}")
        self._folder = folder
        self._asked = asked
        self._lock = threading.Lock()
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._series: dict[str, dict[_Series, float]] = {}

    def publish(self) -> None:
        """Write what this process would answer now."""
        with self._lock:
            for collector in self._asked:
                for family in collector.collect():
                    if family.name not in _NO_SUM:
                        self._write(family)

    def text(self) -> bytes:
        """Everything, of all processes, in Prometheus's text format."""
        self.publish()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    async def keep(self) -> None:
        """`publish` every second, until it is cancelled."""
        while True:
            try:
                self.publish()
            except Exception:  # a full disk, say: the rest of the server goes on
                log.warning("what this process counts could not be written", exc_info=True)
            await asyncio.sleep(EVERY)

    def _write(self, family: Metric) -> None:
        last = self._series.setdefault(family.name, {})
        now = {tuple(sorted(sample.labels.items())): sample.value for sample in family.samples}
        names = [name for name, _ in next(iter(now), ())]
        for series in (*now, *(gone for gone in last if gone not in now)):
            labels, value = dict(series), now.get(series, 0.0)
            if family.type == "counter":
                if family.name not in self._counters:
                    self._counters[family.name] = Counter(family.name, family.documentation, names, registry=None)
                counter = self._counters[family.name]
                (counter.labels(**labels) if labels else counter).inc(max(0.0, value - last.get(series, 0.0)))
            else:
                if family.name not in self._gauges:
                    gauge = Gauge(family.name, family.documentation, names, registry=None, multiprocess_mode="livesum")
                    self._gauges[family.name] = gauge
                gauge = self._gauges[family.name]
                (gauge.labels(**labels) if labels else gauge).set(value)
        last.update(now)
