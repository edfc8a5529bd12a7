"""Composition of adapters as a job: LoRAHub in a process of its own, and the result in the registry."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from adapters.registry import Registry
from adapters.registry.entry import Entry
from adapters.registry.registry import check_name
from rag.serve.errors import RequestError
from rag.serve.jobs import Progress
from rag.serve.openai_types import Strict

_TOLD = 2_000
"""Characters of the reason that a process which failed gave."""


class Example(Strict):
    """What is asked, and what should be answered."""

    prompt: str = Field(min_length=1, max_length=20_000)
    answer: str = Field(min_length=1, max_length=20_000)


class ComposeRequest(Strict):
    """``POST /v1/adapters/compose``: a new adapter ``name``, of those in ``adapters`` (or ``count`` that are chosen), by a few examples."""

    name: str
    examples: Annotated[list[Example], Field(min_length=1, max_length=100)]
    adapters: Annotated[list[str] | None, Field(min_length=1, max_length=100)] = None
    choose: Literal["random", "loss"] = "random"
    count: Annotated[int, Field(ge=1, le=100)] = 20
    evaluations: Annotated[int, Field(ge=2, le=1_000)] = 40


@dataclass(frozen=True)
class Compose:
    """The work of the job: search among adapters of the model ``base``. Its process has that model in memory, so that the server need not;
    a job that is cancelled ends it, and nothing is added then."""

    registry: Registry
    asked: ComposeRequest
    base: str

    @classmethod
    def of(cls, registry: Registry, asked: ComposeRequest) -> Compose:
        """Raises `InputError` for a name that is not allowed, and `RequestError` for one that is taken and for adapters that are not
        there, or were made for different models."""
        check_name(asked.name)
        entries = {entry.name: entry for entry in registry.entries()}
        if asked.name in entries:
            raise RequestError(409, f"there is an adapter '{asked.name}' already; choose another name", code="name_taken")
        known = {name: entry for name, entry in entries.items() if entry.problem is None and entry.method == "LoRA"}
        names = asked.adapters or list(known)
        missing = [name for name in names if name not in known]
        if missing or not names:
            there = ", ".join(known) or "none"
            raise RequestError(400, f"adapters: there is no LoRA {', '.join(map(repr, missing))}; there are: {there}", code="invalid_value")
        return cls(registry, asked, _base([known[name] for name in names]))

    async def __call__(self, progress: Progress) -> dict[str, Any]:
        """Search, and add what was found. Raises `RequestError` with the reason if the search failed."""
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="graft-compose-"))
        try:
            account = await self._searched(folder)
            adapter = folder / "composed"
            entry = await asyncio.to_thread(self.registry.add, adapter, self.asked.name)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)
        progress.update(done=1)
        told = ("start", "best", "evaluations", "weights")
        return {"adapter": entry.name, **{name: account[name] for name in told}}

    async def _searched(self, folder: Path) -> dict[str, Any]:
        examples = folder / "examples.jsonl"
        lines = [json.dumps(one.model_dump(), ensure_ascii=False) + "\n" for one in self.asked.examples]
        await asyncio.to_thread(examples.write_text, "".join(lines), "utf-8")
        process = await asyncio.create_subprocess_exec(
            *self._command(folder, examples),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            said, complained = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            reason = complained.decode("utf-8", "replace").strip().removeprefix("error: ").replace(f"{self.registry.folder}{os.sep}", "")
            message = f"the search failed: {reason[-_TOLD:] or 'it ended without a word'}"
            raise RequestError(500, message, type="server_error", code="compose_failed")
        account: dict[str, Any] = json.loads(said)
        return account

    def _command(self, folder: Path, examples: Path) -> list[str]:
        asked = self.asked
        command = [sys.executable, "-P", "-m", "rag.cli.main", "compose", str(examples), "--out", str(folder / "composed"), "--json"]
        command += ["--registry", str(self.registry.folder), "--base", self.base, "--evaluations", str(asked.evaluations)]
        if asked.adapters is None:
            return [*command, "--choose", asked.choose, "--count", str(asked.count)]
        return [*command, *(part for name in asked.adapters for part in ("--adapter", name))]


def _base(chosen: list[Entry]) -> str:
    """The name of the one model that all were made for."""
    told = sorted({entry.base for entry in chosen if entry.base})
    if len({entry.fingerprint for entry in chosen}) != 1:
        message = f"adapters: they were made for different models ({', '.join(told) or 'not told which'}); those of one are composed"
        raise RequestError(400, message, code="invalid_value")
    if not told:
        raise RequestError(400, "adapters: no card names the model that they were made for", code="invalid_value")
    return told[0]
