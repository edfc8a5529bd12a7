"""Files into a corpus, with live progress and a full account of what happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.cli.console import err, size

if TYPE_CHECKING:
    from rag.core.types import Document
    from retrievers.corpus import Corpus, Summary
    from retrievers.readers import Skipped, SourceFile

BATCH = 512
"""Passages per commit: a stop loses no more, and the bar moves every few seconds on a small machine."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run did. ``skipped`` are the files that could not be read."""

    summary: Summary
    skipped: list[Skipped]
    files: int
    pruned: int
    seconds: float


class _Bars:
    """Two live lines on stderr: files read, and passages committed with their rate. Nothing is drawn unless that is a terminal."""

    def __init__(self, files: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        screen = err()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            console=screen,
            disable=not screen.is_terminal,
        )
        self._files = self._progress.add_task("files read", total=files, rate="")
        self._passages = self._progress.add_task("passages written", total=None, rate="")

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def file(self) -> None:
        """One more file was read."""
        self._progress.advance(self._files)

    def written(self, summary: Summary) -> None:
        """A batch was committed."""
        rate = f"{summary.passages / summary.seconds:,.0f}/s" if summary.seconds > 0 else ""
        self._progress.update(self._passages, completed=summary.passages, rate=rate)


def index_files(corpus: Corpus, files: Sequence[SourceFile], root: str, *, strict: bool, prune: bool) -> Outcome:
    """Bring ``files`` into ``corpus``. With ``strict`` the first unreadable file raises its `ReadError`; what was committed stays.

    ``prune`` deletes documents of earlier runs under ``root`` that are gone. A file that is there and cannot be read keeps what it had.
    """
    import time
    from dataclasses import replace

    started = time.monotonic()
    skipped: list[Skipped] = []
    seen: set[str] = set()
    with _Bars(len(files)) as bars, corpus.writer() as writer:
        documents = _documents(files, None if strict else skipped, seen, bars)
        summary = writer.add(documents, batch_passages=BATCH, progress=bars.written, root=root)
        pruned = writer.delete(_gone(corpus, root, seen, files, skipped)) if prune else 0
    return Outcome(replace(summary, deleted=summary.deleted + pruned), skipped, len(files), pruned, time.monotonic() - started)


def _documents(files: Iterable[SourceFile], skipped: list[Skipped] | None, seen: set[str], bars: _Bars) -> Iterator[Document]:
    from retrievers.readers import read_files

    for file in files:
        for document in read_files([file], None if skipped is None else skipped.append):
            seen.add(document.id)
            yield document
        bars.file()


def _gone(corpus: Corpus, root: str, seen: set[str], files: Iterable[SourceFile], skipped: Iterable[Skipped]) -> list[str]:
    unread = {skip.path for skip in skipped}
    kept = {file.id for file in files if file.path in unread}

    def belongs_to_unread(id: str) -> bool:
        ends = [at for at, letter in enumerate(id) if letter == "#"]  # records of one file are called "file#record"
        return any(id[:end] in kept for end in (*ends, len(id)))

    return [d.id for d in corpus.documents() if d.root == root and d.id not in seen and not belongs_to_unread(d.id)]


def sources(paths: Sequence[Path], out: Path) -> tuple[list[SourceFile], str]:
    """The files below ``paths`` without those of the corpus itself, and a name for where they come from.

    Raises `ReadError` for a path that does not exist.
    """
    from retrievers.readers import list_files

    inside = out.resolve()
    files = [file for file in list_files(paths) if not file.path.resolve().is_relative_to(inside)]
    return files, "\n".join(sorted(str(path.resolve()) for path in paths))


def describe_outcome(outcome: Outcome, corpus: Corpus) -> dict[str, Any]:
    """The account as plain data."""
    summary, info = outcome.summary, corpus.info()
    return {
        "corpus": str(corpus.path),
        "files": outcome.files,
        "added": summary.added,
        "updated": summary.updated,
        "unchanged": summary.unchanged,
        "deleted": summary.deleted,
        "without_text": summary.skipped,
        "skipped": [{"path": str(skip.path), "reason": skip.reason} for skip in outcome.skipped],
        "passages_written": summary.passages,
        "documents": info["documents"],
        "passages": info["passages"],
        "encoder": info["encoder"],
        "index": info["index"],
        "bytes": info["bytes"],
        "seconds": round(outcome.seconds, 3),
    }


def show_outcome(account: dict[str, Any]) -> None:
    """The account as a table on stdout; the first 20 skipped files with their reasons."""
    from rich.table import Table
    from rich.text import Text

    from rag.cli.console import out, plain

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    documents = ", ".join(f"{account[name]:,} {name}" for name in ("added", "updated", "unchanged", "deleted"))
    table.add_row("documents", documents + (f", {account['without_text']:,} without text" if account["without_text"] else ""))
    table.add_row("passages", f"{account['passages_written']:,} written; the corpus holds {account['passages']:,}")
    table.add_row("files", f"{account['files']:,} found, {len(account['skipped']):,} skipped")
    table.add_row("time", f"{account['seconds']:.1f} s")
    table.add_row("on disk", Text(f"{size(account['bytes'])} in {plain(account['corpus'])}"))
    screen = out()
    screen.print(table, soft_wrap=True)
    for skip in account["skipped"][:_SHOWN]:
        screen.print(Text(plain(f"skipped {skip['path']}: {skip['reason']}"), style="yellow"), soft_wrap=True)
    if len(account["skipped"]) > _SHOWN:
        screen.print(Text(f"… and {len(account['skipped']) - _SHOWN:,} more (all of them with --json)", style="yellow"))


_SHOWN = 20
