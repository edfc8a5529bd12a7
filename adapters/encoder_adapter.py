"""What a sentence encoder wears: an adapter of its transformer, trained on questions and passages (`adapters.training.tasks`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import folder as disk
from adapters.durable import sha256
from adapters.registry import Registry
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch, MissingDependency

if TYPE_CHECKING:
    from adapters.adapted import Adapted

_POOLED = ("Transformer", "Pooling", "Normalize")


class EncoderAdapter:
    """An adapter by its folder or its name in the registry. Nothing is read before it is asked for."""

    def __init__(self, named: str) -> None:
        self._named = named
        self._identity = ""

    @property
    def identity(self) -> str:
        """The method and a SHA-256 over all that vectors depend on: method, options and tensors, not name or place.

        Raises `AdapterError` if there is no such adapter, `AdapterDamaged` if a file is not the one that was written.
        """
        if not self._identity:
            self._identity = _identity(self.folder())
        return self._identity

    def folder(self) -> Path:
        """Where it is: a folder goes before a name of the registry. Raises `AdapterError` that lists what there is."""
        path, registry = Path(self._named).expanduser(), Registry()
        if (path / disk.CARD).is_file():
            return path
        names = [entry.name for entry in registry.entries()]
        if self._named in names:
            return registry.path(self._named)
        if path.is_dir():
            disk.read_card(path)
        raise AdapterError(
            f"the encoder's adapter {self._named!r} is not there: it is no folder, and {registry.folder} has: {', '.join(names) or 'none'};"
            " put it back where it was, or index again with another"
        )

    def wear(self, encoder: Any) -> None:
        """Put it on ``encoder``, a ``SentenceTransformer`` on its device.

        Raises `AdapterMismatch` if it was made for another model, or if the encoder does not make vectors as the training did: by the
        mean over tokens. Raises `MissingDependency` without PEFT, and what `identity` does.
        """
        expected, folder = self.identity, self.folder()
        modules = list(encoder)
        kinds = tuple(type(module).__name__ for module in modules)
        pooling = getattr(modules[1], "pooling_mode", None) if len(modules) > 1 else None
        if kinds not in (_POOLED, _POOLED[:2]) or pooling != "mean":
            raise AdapterMismatch(
                f"{folder}: adapters are trained on the mean over tokens, normalised, and this encoder makes its vectors by"
                f" {', '.join(kinds)} with pooling '{pooling}'; use an encoder of mean pooling"
            )
        adapted = _worn(modules[0].model, folder)
        if _identity(folder) != expected:
            adapted.remove()
            raise AdapterMismatch(f"{folder} changed after it was first looked at ({expected}); open the encoder again")
        adapted.model.eval()
        modules[0].model = adapted.model


def _worn(transformer: Any, folder: Path) -> Adapted:
    try:
        from adapters.adapted import load
    except ImportError as error:
        raise MissingDependency(f"an encoder's adapter needs torch and peft ({error}): pip install 'graft-rag[cpu,adapters]'") from error
    return load(transformer, folder)


def _identity(folder: Path) -> str:
    card = disk.read_card(folder)
    files = {name: expected for name, expected in sorted(card["files"].items()) if name != disk.CONFIG}
    for name, expected in files.items():
        if Path(name).name != name or not (folder / name).is_file() or sha256(folder / name) != expected:
            raise AdapterDamaged(f"{folder / name} is missing or is not the file that was written; train or copy the adapter again")
    described = json.dumps([card["method"], card["arguments"], files], sort_keys=True)
    return f"{card['method']} sha256={hashlib.sha256(described.encode()).hexdigest()[:32]}"
