"""What the training of an encoder's adapter leaves behind, in one folder: corpora, mined data, adapters.

Each has the settings that made it in its name: the same call finds it again, a stopped one goes on, and other settings make another.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from adapters.folder import CARD
from adapters.methods import arguments
from adapters.training.data import Related, read
from adapters.training.mining import Mining, cosines, mine
from adapters.training.options import Options
from benchmarks.files import write_whole
from benchmarks.kept import digest
from rag.core.types import Passage
from retrievers.corpus import Corpus
from retrievers.dense import Dense
from retrievers.encoders import SentenceEncoder


class Workshop:
    """``folder`` keeps what is made of ``about`` (JSON), what all of it depends on. ``encoder`` is the frozen model."""

    def __init__(self, folder: Path, about: Mapping[str, Any], encoder: str = "minilm") -> None:
        self._folder = folder
        self._about = dict(about)
        self._encoder = encoder

    def corpus(self, name: str, passages: Sequence[Passage], adapter: Path | None = None) -> Corpus:
        """``passages``, encoded with ``adapter`` on the encoder; what a stopped call encoded is there."""
        encoder = SentenceEncoder(self._encoder, adapter=None if adapter is None else str(adapter))
        path = self._path(name, {"encoder": encoder.identity, "ids": [passage.id for passage in passages]})
        corpus = Corpus.open(path, encoder=encoder) if Corpus.exists(path) else Corpus.create(path, encoder=encoder)
        if len(corpus) < len(passages):
            corpus.add_passages(passages, batch_passages=256, progress=_Told(path.name, len(passages)))
        return corpus

    def search(self, corpus: Corpus, queries: list[str], k: int, allowed: Sequence[str] | None = None) -> list[list[str]]:
        """The ids of the best ``k`` passages of each query, among ``allowed`` (None: all)."""
        found = Dense(corpus).search_batch(queries, k, None if allowed is None else {"document": list(allowed)})
        return [[hit.passage.id for hit in hits] for hits in found]

    def plain(self, records: Sequence[Related]) -> Path:
        """``records`` as they are, as a file for training."""
        return self._written("plain", {}, records, lambda: records)

    def mined(self, records: Sequence[Related], corpus: Corpus, options: Mining) -> Path:
        """``records`` with hard negatives out of ``corpus``, as a file for training."""
        encoder = SentenceEncoder(self._encoder)
        search, settings = Dense(corpus, encoder=encoder).search_batch, {**asdict(options), "encoder": encoder.identity}
        return self._written("mined", settings, records, lambda: [each.record for each in mine(records, search, options, cosines(encoder))])

    def trained(self, file: Path, max_tokens: int, method: Any, options: Options) -> Path:
        """The folder of an adapter that ``method`` learnt from ``file``; a stopped run goes on."""
        from rag.cli.training import Training

        data = read(file)
        base = SentenceEncoder(self._encoder).identity
        settings = {"base": base, "data": data.sha256, "max_tokens": max_tokens, "method": arguments(method), **asdict(options)}
        out = self._path(type(method).__name__.lower(), settings)
        working = out.with_name(f"{out.name}.training")
        if not (out / CARD).is_file():
            print(f"{out.name}: rate {options.lr:g} on {len(data.records)} examples", flush=True)
            told = Training(self._encoder, file, None, max_tokens, options).run(method, out, working, resume=working.exists())
            print(f"{out.name}: loss {told['first_loss']:.3f} to {told['last_loss']:.3f}, {told['seconds']:.0f} s", flush=True)
        shutil.rmtree(working, ignore_errors=True)
        return out

    def _written(self, name: str, settings: Mapping[str, Any], records: Sequence[Related], make: Callable[[], Sequence[Related]]) -> Path:
        path = self._path(name, {**settings, "records": [asdict(record) for record in records]}, ".jsonl")
        if not path.is_file():
            write_whole(path, "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in make()))
        return path

    def _path(self, name: str, settings: Mapping[str, Any], ending: str = "") -> Path:
        return self._folder / f"{name}-{digest([self._about, settings])}{ending}"


class _Told:
    """Says how far a corpus is."""

    def __init__(self, name: str, total: int) -> None:
        self._name = name
        self._total = total

    def __call__(self, summary: Any) -> None:
        """A batch was written."""
        print(f"{self._name}: {summary.passages:,} of {self._total:,} passages, {summary.seconds:.0f} s", flush=True)
