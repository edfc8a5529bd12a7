"""`Corpus`: documents in, passages out, one folder on disk."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rag.core.errors import CorpusDamaged, CorpusError, InputError
from rag.core.protocols import Encoder
from rag.core.registry import component
from rag.core.types import Document, Passage
from retrievers.corpus import ann, durable
from retrievers.corpus.cache import PassageCache, PassagesGone
from retrievers.corpus.commits import create_database
from retrievers.corpus.export import export_jsonl
from retrievers.corpus.inspect import describe_corpus, verify_corpus
from retrievers.corpus.manifest import DocumentRecord, Manifest, Part, Summary
from retrievers.corpus.parts import Chunker, TermMaker, check_identity, default_chunker, describe, rebuild
from retrievers.corpus.segment import SegmentVanished
from retrievers.corpus.snapshot import Snapshot, load_snapshot
from retrievers.corpus.store import DATABASE, Store, connect
from retrievers.corpus.writer import Progress, Writer

T = TypeVar("T")

_RETRIES = 20


@component
class Corpus:
    """Documents, their passages and indices in the folder ``path``, opened on first use.

    One process may write while any number read; a reader sees each commit whole, from its next search on. ``encoder``, ``analyzer`` and
    ``chunker`` are only needed if custom ones built the corpus: it remembers components that are registered. Errors: `CorpusNotFound`,
    `CorpusDamaged`, `CorpusMismatch`, `CorpusLocked`.
    """

    def __init__(
        self,
        path: str | Path,
        encoder: Encoder | None = None,
        analyzer: TermMaker | None = None,
        chunker: Chunker | None = None,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self.encoder = encoder
        self.analyzer = analyzer
        self.chunker = chunker
        self.read_only = read_only
        self.folder = Path(path)
        self.name = hashlib.sha256(str(self.folder.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:12]
        """Tells it from others, in hits; not its path, which is nobody else's business."""
        self.store = Store(self.folder, read_only=read_only)
        self._parts: dict[str, Any] = {}
        self._cache = PassageCache(self.store.passages)
        self._snapshot: Snapshot | None = None
        self._lock = threading.RLock()

    @staticmethod
    def exists(path: str | Path) -> bool:
        """Whether a corpus is there. One whose creation was stopped half-way is not: `create` may be called again."""
        folder = Path(path)
        return (folder / DATABASE).is_file() and not _is_free(folder)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | str | None = "minilm",
        analyzer: TermMaker | None = None,
        chunker: Chunker | None = None,
        index: str = "auto",
    ) -> Corpus:
        """Make an empty corpus in the new or empty folder ``path``.

        ``encoder`` None makes one for BM25 only; a string names a model for `SentenceEncoder`. ``index`` is what `compact` builds: "flat",
        "hnsw", "ivf-sq8", "ivf-pq" or "auto" (by size). Raises `InputError` if the folder is in use.
        """
        from retrievers.analyzers import Analyzer
        from retrievers.encoders import SentenceEncoder

        folder = Path(path)
        ann.check_kind(index)
        if folder.exists() and (not folder.is_dir() or not _is_free(folder)):
            raise InputError(f"{folder}: there is a file, a corpus or another folder here; open it with Corpus.open, or choose a new path")
        encoder = SentenceEncoder(encoder) if isinstance(encoder, str) else encoder
        analyzer = analyzer or Analyzer()
        chunker = chunker or default_chunker()
        described = describe(encoder), 0 if encoder is None else encoder.dim, describe(analyzer), describe(chunker)
        with durable.disk_errors(folder):
            (folder / "segments").mkdir(parents=True, exist_ok=True)
            create_database(folder, *described, index)
        return cls.open(folder, encoder=encoder, analyzer=analyzer, chunker=chunker)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        encoder: Encoder | None = None,
        analyzer: TermMaker | None = None,
        chunker: Chunker | None = None,
        read_only: bool = False,
    ) -> Corpus:
        """Open the corpus at ``path`` at once: its version, the sizes of all files, and the identities of what is given are checked."""
        corpus = cls(path, encoder, analyzer, chunker, read_only)
        manifest = corpus.manifest()
        for role, given, part in (("encoder", encoder, manifest.encoder), ("analyzer", analyzer, manifest.analyzer)):
            if given is not None:
                check_identity(given, part, role, corpus.folder)
        corpus.snapshot()
        return corpus

    def writer(self) -> Writer:
        """A writing session: ``with corpus.writer() as w: w.add(...); w.delete(...)``. Raises `CorpusLocked` if there is another."""
        return Writer(self)

    def add(
        self,
        documents: Iterable[Document],
        *,
        batch_passages: int = 2048,
        progress: Progress | None = None,
        root: str = "",
        prune: bool = False,
    ) -> Summary:
        """Write documents, replacing those whose id is there with other content and skipping those that are there unchanged.

        Documents are taken one by one and committed about every ``batch_passages`` passages, so memory does not grow with their number, a
        stopped run loses one batch at most, and the same call again goes on where it stopped. ``progress`` is called with the `Summary` so
        far after each commit. ``root`` names where the documents come from; with ``prune``, documents of earlier runs under the same root
        that this run did not bring are deleted at the end.
        """
        with self.writer() as writer:
            return writer.add(documents, batch_passages=batch_passages, progress=progress, root=root, prune=prune)

    def add_passages(self, passages: Iterable[Passage], *, batch_passages: int = 2048, progress: Progress | None = None) -> Summary:
        """Write passages that are cut already, like `add`.

        A passage without ``document`` is a document of its own; passages of one document must come one after the other and replace all
        that it had.
        """
        with self.writer() as writer:
            return writer.add_passages(passages, batch_passages=batch_passages, progress=progress)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents by id; their text is gone at once. Returns how many there were."""
        with self.writer() as writer:
            return writer.delete(ids)

    def compact(self, index: str | None = None) -> None:
        """Merge everything into large segments without dead passages, build the vector index (None: as created), shrink the files."""
        with self.writer() as writer:
            writer.compact(index)

    def export(self, path: str | Path) -> int:
        """Write all documents and passages of one moment to a JSON Lines file, whole or not at all; return the number of lines."""
        with Store(self.folder, read_only=self.read_only).session() as store, durable.disk_errors(Path(path)):
            return export_jsonl(store, Path(path))

    def verify(self) -> None:
        """Check every byte: all checksums, SQLite's structure, and that both agree. Raises `CorpusDamaged`."""
        self.read(lambda snapshot: verify_corpus(self.store, snapshot))

    def manifest(self) -> Manifest:
        """The corpus as one value: identities, counts, segments with their files and checksums."""
        return self.store.manifest()

    def info(self) -> dict[str, Any]:
        """What `rag info` shows: counts, bytes, what built it, and how vectors are searched."""
        return describe_corpus(self.folder, self.manifest())

    def documents(self, after: str = "") -> Iterator[DocumentRecord]:
        """All documents whose ids come after ``after``, ordered by id."""
        return self.store.documents(after)

    def document(self, id: str) -> DocumentRecord | None:
        """The document of that id, without its text (`each_passage`); None if there is none."""
        return self.store.document(id)

    def each_passage(self, document: str | None = None) -> Iterator[Passage]:
        """All passages, or those of one document, in the order they were added."""
        return (passage for _, passage in self.store.each_passage(document))

    def passages(self, rowids: Sequence[int]) -> list[Passage]:
        """The passages with these row ids, in order, through a bounded cache. Raises `PassagesGone` for one that was deleted."""
        return self._cache.get(list(rowids))

    def __len__(self) -> int:
        return len(self.snapshot())

    def __bool__(self) -> bool:
        return True  # a corpus without passages is still a corpus

    def __repr__(self) -> str:
        return f"Corpus({str(self.path)!r})"

    def close(self) -> None:
        """Close files; the corpus opens again when it is used."""
        with self._lock:
            self._snapshot = None
        self.store.close()

    def check(self) -> None:
        """Raise `CorpusError` unless the corpus is there and may be written."""
        if self.read_only:
            raise CorpusError(f"{self.folder}: it was opened with read_only=True and cannot be changed")
        self.store.generation()

    # What retrievers use.

    @property
    def dim(self) -> int:
        """Length of the vectors; 0 without an encoder."""
        if "dim" not in self._parts:
            self._parts["dim"] = self.manifest().dim
        return int(self._parts["dim"])

    def load_encoder(self) -> Encoder | None:
        """The encoder that built the corpus: the one given, else built again from what the corpus remembers; None for BM25 only."""
        return self._load("encoder", self.encoder)  # type: ignore[no-any-return]

    def load_analyzer(self) -> TermMaker:
        """The analyzer that built the corpus."""
        return self._load("analyzer", self.analyzer)  # type: ignore[no-any-return]

    def load_chunker(self) -> Chunker:
        """The chunker for new documents: the one given, else the last one used."""
        return self._load("chunker", self.chunker)  # type: ignore[no-any-return]

    def snapshot(self) -> Snapshot:
        """The corpus at its newest commit. Cheap if nothing was committed since the last call."""
        with self._lock:
            for _ in range(_RETRIES):
                if self._snapshot is not None and self._snapshot.generation == self.store.generation():
                    return self._snapshot
                generation, records, dead = self.store.state()
                known = {segment.record.name: segment for segment in self._snapshot.segments} if self._snapshot else {}
                try:
                    self._snapshot = load_snapshot(self.folder / "segments", generation, records, dead, known)
                except SegmentVanished as error:
                    if self.store.generation() == generation:
                        raise self.missing(error) from error
        raise CorpusError(f"{self.folder}: it changed {_RETRIES} times while it was being opened; try again when less is written")

    def read(self, action: Callable[[Snapshot], T]) -> T:
        """Run ``action`` on the newest commit; if a writer took files or passages away meanwhile, again on the next one."""
        for _ in range(_RETRIES):
            snapshot = self.snapshot()
            try:
                return action(snapshot)
            except SegmentVanished as error:
                if self.store.generation() == snapshot.generation:
                    raise self.missing(error) from error
            except PassagesGone as error:
                if self.store.generation() == snapshot.generation:
                    raise CorpusDamaged(
                        f"{self.folder / DATABASE}: {error} is in a segment and not in the database; restore a copy or index again"
                    ) from error
        raise CorpusError(f"{self.folder}: it changed {_RETRIES} times during one search; try again when less is written")

    def searchable(self, snapshot: Snapshot) -> Snapshot:
        """Return ``snapshot`` if there is something to find in it. Raises `CorpusError`."""
        if not len(snapshot):
            raise CorpusError(f"{self.folder}: the corpus is empty; add documents first (`rag index FOLDER --out {self.folder}`)")
        return snapshot

    def missing(self, error: SegmentVanished) -> CorpusDamaged:
        """The error for a file that should be there."""
        return CorpusDamaged(f"{error.path}: the file is missing; restore the corpus from a copy, or delete it and index again")

    def _load(self, role: str, given: Any) -> Any:
        with self._lock:
            if role not in self._parts:
                part: Part = getattr(self.manifest(), role)
                if given is not None:
                    if role != "chunker":  # another chunker only concerns documents that are still to come
                        check_identity(given, part, role, self.folder)
                    self._parts[role] = given
                else:
                    self._parts[role] = rebuild(part, role, self.folder) if part.identity else None
            return self._parts[role]


def _is_free(folder: Path) -> bool:
    """Whether a corpus may be made here: nothing inside, or what a creation that was stopped left behind."""
    names = {path.name for path in folder.iterdir()}
    if not names <= {DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal", "segments"}:
        return False
    if DATABASE not in names:
        return not any((folder / "segments").iterdir()) if names else True
    connection = connect(folder, read_only=False)
    try:
        return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0)
    finally:
        connection.close()
