"""An adapter on disk: ``adapter_config.json`` and ``adapter_model.safetensors``, as PEFT has them, and ``graft.json``, the card.

The card names the method and its options, the base model and its fingerprint, and the checksum of every other file; it is written last,
into a folder that gets its name only when it is complete. So a half-written adapter is never taken for a whole one. Nothing is unpickled.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.durable import flush, sha256
from rag.core.errors import AdapterDamaged, AdapterError, InputError

if TYPE_CHECKING:
    from adapters.contract import State

CONFIG, WEIGHTS, HEAD, CARD = "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "graft.json"
FORMAT = 1


def write(folder: Path, config: Mapping[str, Any], state: State, head: State, card: Mapping[str, Any]) -> None:
    """Write all files. Raises `InputError` if ``folder`` is there already and is no adapter; an adapter is replaced as a whole."""
    from safetensors.torch import save_file

    if folder.exists() and not (folder / CARD).is_file() and any(folder.iterdir()):
        raise InputError(f"{folder} is there and is no adapter of graft; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    made.mkdir()
    try:
        (made / CONFIG).write_text(json.dumps(dict(config), indent=1, sort_keys=True, default=_plain) + "\n", "utf-8")
        for name, tensors in ((WEIGHTS, state), (HEAD, head)):
            if tensors or name == WEIGHTS:
                save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, made / name)
        files = {file.name: sha256(file) for file in sorted(made.iterdir())}
        (made / CARD).write_text(json.dumps({"format": FORMAT, **card, "files": files}, indent=1, ensure_ascii=False) + "\n", "utf-8")
        for file in made.iterdir():
            flush(file)
        _replace(made, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def read_card(folder: Path) -> dict[str, Any]:
    """The card. Raises `AdapterError` if there is no adapter of graft, `AdapterDamaged` if the card cannot be read."""
    file = folder / CARD
    if not file.is_file():
        kept = _kept(folder)
        if kept and not folder.exists():
            raise AdapterError(f"{folder}: replacing it was stopped between two renames; what stood there is {kept[-1]}: rename it")
        hint = "; it looks like a PEFT adapter: `rag adapters add` takes it in" if (folder / CONFIG).is_file() else ""
        raise AdapterError(f"{folder}: there is no adapter of graft ({CARD} is missing){hint}")
    try:
        card = json.loads(file.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise AdapterDamaged(f"{file} cannot be read: {error}") from error
    if not isinstance(card, dict) or not {"format", "method", "arguments", "base", "files"} <= set(card):
        raise AdapterDamaged(f"{file} lacks what every card has: format, method, arguments, base, files")
    if card["format"] != FORMAT:
        raise AdapterError(f"{file} has format {card['format']!r}; this version of graft reads {FORMAT}")
    return card


def read_config(folder: Path) -> dict[str, Any]:
    """``adapter_config.json``. Raises `AdapterDamaged` if it is no object."""
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise AdapterDamaged(f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise AdapterDamaged(f"{folder / CONFIG} is no JSON object")
    return config


def read_weights(folder: Path) -> tuple[State, State]:
    """Adapter and head, checked against the card. Raises `AdapterDamaged`; a pickled file is never opened."""
    card = read_card(folder)
    pickled = [file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
    if pickled:
        raise AdapterDamaged(f"{folder} holds {', '.join(pickled)}: a pickle may run code when it is read; only safetensors are accepted")
    for name, expected in dict(card["files"]).items():
        file = folder / name
        if Path(name).name != name:
            raise AdapterDamaged(f"{folder / CARD} names a file outside of the folder: {name!r}")
        if not file.is_file():
            raise AdapterDamaged(f"{file} is missing; the card names it")
        if sha256(file) != expected:
            raise AdapterDamaged(f"{file} is not the file that was written: its checksum differs from the card's")
    return read_safetensors(folder / WEIGHTS), read_safetensors(folder / HEAD) if HEAD in card["files"] else {}


def read_safetensors(file: Path) -> State:
    """All tensors of ``file``. Raises `AdapterDamaged` if it is no safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterDamaged(f"{file} cannot be read as safetensors: {error}") from error


def _replace(made: Path, folder: Path) -> None:
    """Two renames, because a folder cannot take the place of one that is not empty. A kill between them leaves the old one hidden."""
    if folder.exists():
        os.replace(folder, folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old"))
    os.replace(made, folder)
    flush(folder.parent)
    for old in _kept(folder):
        shutil.rmtree(old, ignore_errors=True)


def _kept(folder: Path) -> list[Path]:
    """What stood at ``folder`` and was not deleted yet."""
    return sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*.old"))


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
