"""One pass over a corpus: windows are read batch by batch, and what followed each token goes to the disk at once.

A journal counts the batches that are there; a stopped pass goes on behind the last one, and gives the same bytes as one that never stopped.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from generators.knn_lm.datastore import INDEX, TOKENS
from generators.knn_lm.decoder import Decoder
from generators.knn_lm.manifest import MANIFEST, Manifest, Plan, write_json
from generators.knn_lm.windows import Window, Windows
from rag.core.errors import CorpusDamaged, CorpusError, CorpusLocked, CorpusMismatch, InputError, ModelError
from retrievers.corpus import durable
from retrievers.corpus.ann import load_faiss
from retrievers.corpus.manifest import FileRecord

KEYS = "keys.npy"
JOURNAL = "building.json"
LOCK = "datastore.lock"
EXACT = 4096
"""A smaller datastore is one cluster, so that search is exact."""
_COMMIT = 8192
"""Entries after which what is written is flushed and counted: a kill costs at most this much reading."""
_BLOCK = 16_384
_TRAIN_PER_LIST = 64
_OVERHEAD = 1 << 20

Progress = Callable[[int, int], None]


def build(folder: Path, decoder: Decoder, texts: Sequence[str], windows: Windows | None, batch: int, progress: Progress | None) -> None:
    """See `Datastore.build`."""
    if isinstance(texts, str):
        raise InputError("the corpus is a list of texts, not one string: build(folder, decoder, [text])")
    if batch < 1:
        raise InputError(f"batch is a whole number of at least 1, not {batch}")
    windows = windows or Windows()
    if windows.size > decoder.window + 1:  # the last token of a window is predicted, not read
        raise InputError(f"windows of {windows.size} tokens: {decoder.name} reads at most {decoder.window} at once")
    ids = [decoder.ids(text) for text in texts]
    plan = Plan.of(decoder.source, ids, windows, batch)
    with durable.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / LOCK, timeout=0, thread_local=False):
                _Pass(folder, decoder, ids, plan).run(progress)
        except Timeout:
            raise CorpusLocked(f"{folder}: another process builds this datastore; wait for it, or stop it") from None


class _Pass:
    """A build of ``plan`` in ``folder``, whose lock is held."""

    def __init__(self, folder: Path, decoder: Decoder, texts: Sequence[Sequence[int]], plan: Plan) -> None:
        self._folder = folder
        self._decoder = decoder
        self._texts = texts
        self._plan = plan

    def run(self, progress: Progress | None) -> None:
        if (self._folder / MANIFEST).is_file():
            if Manifest.read(self._folder).plan != self._plan:
                raise CorpusMismatch(
                    f"{self._folder}: a datastore of another model, corpus or window is there; give another folder, or delete it"
                )
            self._clear()
            return
        self._fill(self._begun(), progress)
        manifest = self._indexed()
        manifest.write(self._folder)
        self._clear()

    def _begun(self) -> int:
        """How many batches are there; the files that take the others are there after this."""
        journal = self._folder / JOURNAL
        if journal.is_file():
            try:
                held = json.loads(journal.read_text("utf-8"))
                same, done = held["plan"] == _plain(self._plan), int(held["batches"])
            except (ValueError, LookupError, TypeError) as error:
                raise CorpusDamaged(
                    f"{journal}: it is not what a build writes ({error!r}); delete {self._folder} and build again"
                ) from error
            if not same:
                raise CorpusMismatch(
                    f"{self._folder}: a build of another model, corpus or window was stopped here; give another folder, or delete it"
                )
            return done
        self._check_room()
        self._create(KEYS, np.dtype(np.float16), (self._plan.entries, self._plan.source.dim))
        self._create(TOKENS, np.dtype(np.int32), (self._plan.entries,))
        self._count(0)
        return 0

    def _check_room(self) -> None:
        keys = 2 * self._plan.entries * self._plan.source.dim
        needed = 2 * keys + 12 * self._plan.entries + _OVERHEAD  # the vectors, again in the index with their numbers, and the tokens
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise CorpusError(
                f"{self._folder}: the build needs {needed / 1e6:,.0f} MB for {self._plan.entries:,} entries and the disk has"
                f" {free / 1e6:,.0f} MB; make room, or give less text"
            )

    def _create(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        file = np.lib.format.open_memmap(self._folder / name, mode="w+", dtype=dtype, shape=shape)  # type: ignore[no-untyped-call]
        del file
        with (self._folder / name).open("r+b") as opened:  # room now, not a bus error later
            os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)

    def _count(self, batches: int) -> None:
        for name in (KEYS, TOKENS):
            durable.flush(self._folder / name)
        write_json(self._folder / JOURNAL, {"plan": _plain(self._plan), "batches": batches})

    def _fill(self, done: int, progress: Progress | None) -> None:
        try:
            keys, tokens = (np.load(self._folder / name, mmap_mode="r+", allow_pickle=False) for name in (KEYS, TOKENS))
        except (OSError, ValueError, EOFError) as error:
            raise CorpusDamaged(f"{self._folder}: what a stopped build left cannot be read ({error}); delete it and build again") from error
        if keys.shape != (self._plan.entries, self._plan.source.dim) or tokens.shape != (self._plan.entries,):
            raise CorpusDamaged(f"{self._folder}: what a stopped build left has other shapes; delete it and build again")
        at = pending = 0
        for number, part in enumerate(self._batches(), 1):
            size = sum(window.predicted for _, window in part)
            if number > done:
                self._read(part, keys[at : at + size], tokens[at : at + size])
                pending += size
                if pending >= _COMMIT or at + size == self._plan.entries:
                    keys.flush()
                    tokens.flush()
                    self._count(number)
                    pending = 0
                    if progress is not None:
                        progress(at + size, self._plan.entries)
            at += size

    def _batches(self) -> Iterator[list[tuple[Sequence[int], Window]]]:
        part: list[tuple[Sequence[int], Window]] = []
        for ids in self._texts:
            for window in self._plan.windows.of(len(ids)):
                part.append((ids, window))
                if len(part) == self._plan.batch:
                    yield part
                    part = []
        if part:
            yield part

    def _read(self, part: Sequence[tuple[Sequence[int], Window]], keys: np.ndarray, tokens: np.ndarray) -> None:
        """Fill the rows of one batch: the vector before each predicted token, and that token."""
        read = self._decoder.keys([ids[window.begin : window.end - 1] for ids, window in part])
        at = 0
        for (ids, window), vectors in zip(part, read, strict=True):
            rows = slice(at, at + window.predicted)
            with np.errstate(over="ignore"):  # told below
                keys[rows] = vectors[window.first - 1 - window.begin :].float().cpu().numpy()
            tokens[rows] = ids[window.first : window.end]
            at = rows.stop
        if not np.isfinite(keys).all():
            raise ModelError(f"{self._decoder.name}: a hidden state is not finite in float16, in which the datastore keeps it")

    def _indexed(self) -> Manifest:
        faiss = load_faiss()
        keys = np.load(self._folder / KEYS, mmap_mode="r", allow_pickle=False)
        count, dim = keys.shape
        lists = 1 if count < EXACT else int(2 * math.sqrt(count))
        size = min(count, max(_TRAIN_PER_LIST * lists, EXACT))
        sample = keys[np.sort(np.random.default_rng(0).choice(count, size, replace=False))].astype(np.float32)
        coarse = faiss.IndexFlatL2(dim)
        index = faiss.IndexIVFScalarQuantizer(coarse, dim, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_L2)
        index.cp.min_points_per_centroid = 1  # small corpora train on what they have, without a warning on the terminal
        index.own_fields = True
        coarse.this.disown()
        index.train(sample)
        for start in range(0, count, _BLOCK):
            index.add(keys[start : start + _BLOCK].astype(np.float32))
        self._write_index(faiss, index)
        spread = float(((sample - sample.mean(axis=0)) ** 2).sum(axis=1).mean())
        files = {name: FileRecord((self._folder / name).stat().st_size, durable.sha256(self._folder / name)) for name in (INDEX, TOKENS)}
        return Manifest(self._plan, lists, spread, files)

    def _write_index(self, faiss: Any, index: Any) -> None:
        new = self._folder / f".{INDEX}.new"
        try:
            faiss.write_index(index, os.fspath(new))
        except RuntimeError as error:  # FAISS reports a full disk as a plain RuntimeError
            raise OSError(28, f"FAISS could not write it: {error}", os.fspath(new)) from error
        durable.flush(new)
        durable.rename(new, self._folder / INDEX)

    def _clear(self) -> None:
        """Remove what only a build needs: the index holds the vectors too."""
        for name in (JOURNAL, KEYS):
            (self._folder / name).unlink(missing_ok=True)


def _plain(plan: Plan) -> Any:
    return json.loads(json.dumps(asdict(plan)))
