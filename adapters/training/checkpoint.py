"""Checkpoints on disk: one folder each, ``training.safetensors`` and ``checkpoint.json`` with its checksum.

A folder gets its name only when it is complete and flushed, and the one before it is deleted only then: at whatever moment a process is
killed, the newest folder is a whole checkpoint. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.durable import flush, sha256
from adapters.folder import read_safetensors
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch

TENSORS, FACTS = "training.safetensors", "checkpoint.json"
FORMAT = 1
_NAME = re.compile(r"step-(\d{9})")


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on: after ``step`` steps, tensors by group ("trained", "optimizer", …) and name, and facts as JSON."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


class Checkpoints:
    """The checkpoints in ``folder``, of a run that ``settings`` (JSON) describe."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._settings = json.loads(json.dumps(dict(settings), default=str))

    def exist(self) -> bool:
        """Whether there is one."""
        return any(self._found())

    def write(self, checkpoint: Checkpoint) -> None:
        """Write it, then delete those before it. Raises `AdapterError` if a weight is not finite: the checkpoint before it stays."""
        from safetensors.torch import save_file

        for name, tensor in checkpoint.tensors.get("trained", {}).items():
            if not bool(torch.isfinite(tensor).all()):
                raise AdapterError(f"step {checkpoint.step}: '{name}' is not finite; it is not saved. Train with a smaller lr")
        made = self.folder / f".{uuid.uuid4().hex[:8]}.part"
        made.mkdir(parents=True)
        try:
            flat = {f"{group}/{name}": tensor for group, tensors in checkpoint.tensors.items() for name, tensor in tensors.items()}
            save_file({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in flat.items()}, made / TENSORS)
            facts = {"format": FORMAT, "step": checkpoint.step, "settings": self._settings, "sha256": sha256(made / TENSORS)}
            (made / FACTS).write_text(json.dumps({**facts, "facts": dict(checkpoint.facts)}) + "\n", "utf-8")
            for path in (made / TENSORS, made / FACTS, made):
                flush(path)
            self._put(made, self.folder / f"step-{checkpoint.step:09d}")
        finally:
            shutil.rmtree(made, ignore_errors=True)
        unfinished = self.folder.glob(".*.part")  # of a process that was killed
        for old in (*unfinished, *(path for step, path in self._found() if step != checkpoint.step)):
            shutil.rmtree(old, ignore_errors=True)

    def newest(self) -> Checkpoint | None:
        """The last one, or None. Raises `AdapterDamaged` if it is not what was written, `AdapterMismatch` if it is of another run."""
        found = max(self._found(), default=None)
        return None if found is None else self._read(found[1])

    def _read(self, folder: Path) -> Checkpoint:
        remedy = f"delete {self.folder} to start afresh"
        try:
            card = json.loads((folder / FACTS).read_text("utf-8"))
            written, step, expected = dict(card["settings"]), int(card["step"]), str(card["sha256"])
            facts = dict(card["facts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AdapterDamaged(f"{folder / FACTS} cannot be read ({error}); {remedy}") from error
        if card.get("format") != FORMAT:
            raise AdapterError(f"{folder} has format {card.get('format')!r}; this version of graft reads {FORMAT}; {remedy}")
        if not (folder / TENSORS).is_file() or sha256(folder / TENSORS) != expected:
            raise AdapterDamaged(f"{folder / TENSORS} is not the file that was written; {remedy}")
        other = sorted(key for key in {*written, *self._settings} if written.get(key) != self._settings.get(key))
        if other:
            told = "; ".join(f"{key} was {written.get(key)!r}, is {self._settings.get(key)!r}" for key in other[:3])
            raise AdapterMismatch(f"{folder} is of another run: {told}. Resume with the same settings, or {remedy}")
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in read_safetensors(folder / TENSORS).items():
            group, _, key = name.partition("/")
            groups.setdefault(group, {})[key] = tensor
        return Checkpoint(step, groups, facts)

    def _found(self) -> Iterator[tuple[int, Path]]:
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.is_dir() and (match := _NAME.fullmatch(path.name)):
                yield int(match[1]), path

    def _put(self, made: Path, target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        os.replace(made, target)
        flush(self.folder)
