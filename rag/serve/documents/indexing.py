"""The work of a job that brings documents to the shelf."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rag.core.errors import ReadError
from rag.serve.documents.form import Upload
from rag.serve.documents.lines import Parsed
from rag.serve.documents.parsing import Parser
from rag.serve.documents.shelf import Account, Shelf
from rag.serve.documents.spool import full_disk
from rag.serve.jobs import Progress

GROUP = 1_000_000
"""Bytes of small files that are written together, in one commit if they fit it."""

_STAYS = "what is counted here was committed and stays, the rest was not written"


@dataclass(frozen=True, slots=True)
class IndexFiles:
    """Parses ``uploads`` one after the other and writes them in groups; a file that cannot be read is left out and named."""

    uploads: Sequence[Upload]
    parser: Parser
    shelf: Shelf

    async def __call__(self, progress: Progress) -> dict[str, Any]:
        """The account. Raises `RequestError` as `Shelf` does; what was committed then stands in the job's result."""
        account = Account()
        with _accounted(account, progress):
            ready: list[Parsed] = []
            try:
                for done, upload in enumerate(self.uploads, 1):
                    try:
                        ready.append(await self.parser.parse(upload.id, upload.file))
                    except ReadError as error:
                        account.skip(upload.id, str(error))
                    if done == len(self.uploads) or sum(parsed.size for parsed in ready) > GROUP:
                        await self._write(ready, account, progress)
                        progress.update(done=done, result=account.describe())
            finally:
                _remove(ready)
        return account.describe()

    async def _write(self, ready: list[Parsed], account: Account, progress: Progress) -> None:
        if ready:
            await self.shelf.add(ready, account, lambda: progress.update(result=account.describe()))
        _remove(ready)

    def remove(self) -> None:
        """Delete the files, whatever became of them."""
        for upload in self.uploads:
            upload.file.remove()


@dataclass(frozen=True, slots=True)
class IndexDocuments:
    """Writes documents that were sent as such."""

    documents: Parsed
    shelf: Shelf

    async def __call__(self, progress: Progress) -> dict[str, Any]:
        """The account. Raises `RequestError` as `Shelf` does."""
        account = Account()

        def committed() -> None:
            done = account.added + account.updated + account.unchanged + len(account.skipped)
            progress.update(done=done, result=account.describe())

        with _accounted(account, progress):
            await self.shelf.add([self.documents], account, committed)
        committed()
        return account.describe()

    def remove(self) -> None:
        """Delete what is on disk."""
        self.documents.file.remove()


@contextmanager
def _accounted(account: Account, progress: Progress) -> Iterator[None]:
    """Leave the account with a job that ends early."""
    try:
        yield
    except BaseException as error:
        account.notes.append(f"{'cancelled' if isinstance(error, asyncio.CancelledError) else 'stopped by an error'}: {_STAYS}")
        progress.update(result=account.describe())
        if told := full_disk(error):
            raise told from error
        raise


def _remove(ready: list[Parsed]) -> None:
    while ready:
        ready.pop().file.remove()
