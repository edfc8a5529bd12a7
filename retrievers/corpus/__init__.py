"""The corpus on disk: documents in, ranked passages out, whole after any crash.

    handbook/
      corpus.sqlite3      documents, passages, tombstones, and the manifest: the one commit point
      corpus.lock         held by the one process that writes
      segments/000007/    immutable arrays: row ids, vectors, raw term frequencies, perhaps a vector index

A commit writes a segment under a temporary name, flushes it, renames it, and then makes it count in one SQLite transaction. What a stopped
writer leaves outside of that transaction is removed by the next one.
"""

from __future__ import annotations

from retrievers.corpus.corpus import Corpus
from retrievers.corpus.manifest import DocumentRecord, Manifest, SegmentRecord, Summary
from retrievers.corpus.writer import Writer

__all__ = ["Corpus", "DocumentRecord", "Manifest", "SegmentRecord", "Summary", "Writer"]
