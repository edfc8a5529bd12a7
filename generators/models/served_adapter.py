"""An adapter's folder on its way to a vLLM server.

vLLM 0.32 refuses some adapters with a server error, and wears others in part without a word: layers outside its ``--lora-target-modules``,
layers that the model does not have, and factors that are smaller than the layer. All of these are refused here, before anything is sent.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adapters.durable import sha256
from adapters.folder import CONFIG, WEIGHTS
from adapters.registry.lora_folder import PREFIX, read_header
from adapters.registry.servable import SERVER_RANKS, servable
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch

KEPT = ".served"
"""Beside an adapter's folder: the copies that servers read."""

_FACTORS = (".lora_A.weight", ".lora_B.weight")


def check(folder: Path, max_rank: int = 16, targets: Sequence[str] | None = None, root: str = "") -> None:
    """Raise unless a server with these limits wears the whole adapter in ``folder``.

    ``max_rank`` is its ``--max-lora-rank``, ``targets`` its ``--lora-target-modules`` (None: all); ``root`` is the model that it serves,
    which is looked at where it is a folder of this machine. Raises `AdapterError` with the reason and what to do, `AdapterMismatch` for
    another base model, `AdapterDamaged` for a folder that cannot be read.
    """
    reason = servable(folder, max_rank)
    if reason is not None:
        only_rank = servable(folder, SERVER_RANKS[-1]) is None
        hint = ", and say so here: max_rank, --max-rank (the server does not tell its limit)" if only_rank else ""
        raise AdapterError(f"{folder}: {reason.replace('NAME', folder.name)}{hint}")
    layers = _layers(folder)
    outside = [layer for layer in layers if targets is not None and layer.rpartition(".")[2] not in targets]
    if outside:
        raise AdapterError(
            f"{folder}: it changes '{outside[0]}', and vLLM would leave that out without a word: the server's --lora-target-modules are"
            f" {', '.join(targets or ())}; start the server with that layer among them, or train an adapter without it"
        )
    _check_base(folder, layers, _base_shapes(Path(root)) if root else {})


def lasting_copy(folder: Path) -> Path:
    """A copy of the adapter in ``folder`` under a name of its content, made once: ``.served/NAME-CHECKSUM`` beside it.

    vLLM reads an adapter again whenever its own cache was full, and takes prompts that it has read with the same name and path for the
    same: it must never find other weights at a path than those of the first time. Raises `AdapterDamaged`, `AdapterError`.
    """

    def fill(made: Path) -> None:
        made.mkdir()
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(folder / name, made / name)

    return made_once(place_of_copy(folder), fill)


def made_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """``target``; if it is not there, ``fill`` writes it under another name and it appears by a rename. Raises `AdapterError`."""
    if target.is_dir():
        return target
    made = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fill(made)
        os.replace(made, target)
    except OSError as error:
        if not target.is_dir():  # else another process was faster
            raise AdapterError(
                f"{target}: what the server shall read cannot be written ({error.strerror}); make {target.parent.parent} writable"
            ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


def place_of_copy(folder: Path) -> Path:
    """Where the copy of ``folder`` as it is now belongs, whether it is there or not. Raises `AdapterDamaged`."""
    digest = hashlib.sha256()
    for file in (folder / CONFIG, folder / WEIGHTS):
        try:
            digest.update(sha256(file).encode())
        except OSError as error:
            raise AdapterDamaged(f"{file} cannot be read ({error.strerror})") from error
    whole = folder.resolve()
    return whole.parent / KEPT / f"{whole.name}-{digest.hexdigest()[:16]}"


def _layers(folder: Path) -> dict[str, tuple[int | None, int | None]]:
    """(in, out) of each layer that the adapter changes, by its name in the base model."""
    file = folder / WEIGHTS
    if not file.is_file():
        raise AdapterDamaged(f"{file} is missing; vLLM is given no other file, because a pickle may run code when it is read")
    shapes = read_header(file)
    found: dict[str, tuple[int | None, int | None]] = {}
    for name, shape in shapes.items():
        for place, factor in enumerate(_FACTORS):
            if name.endswith(factor) and len(shape) == 2:
                layer = name.removeprefix(PREFIX).removesuffix(factor)
                wide, high = found.get(layer, (None, None))
                found[layer] = (shape[1], high) if place == 0 else (wide, shape[0])
    if not found:
        raise AdapterDamaged(f"{file} holds no LoRA; its tensors are called {PREFIX}LAYER.lora_A.weight, lora_B")
    return found


def _base_shapes(root: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the served model's tensors; none where its files are not here."""
    files = sorted(root.glob("*.safetensors")) if (root / "config.json").is_file() else []
    return {name: shape for file in files for name, shape in read_header(file).items()}


def _check_base(folder: Path, layers: Mapping[str, tuple[int | None, int | None]], base: Mapping[str, tuple[int, ...]]) -> None:
    there = {layer: base[f"{layer}.weight"] for layer in layers if f"{layer}.weight" in base}
    if not there:  # not here, or its file names the layers otherwise
        return
    missing = [layer for layer in layers if layer not in there]
    if missing:
        raise AdapterMismatch(f"{folder}: it was made for another model; the served one has no layer '{missing[0]}'")
    for layer, shape in there.items():
        wide, high = layers[layer]
        if sorted((wide or 0, high or 0)) != sorted(shape):  # GPT-2's layers are the other way round
            raise AdapterMismatch(
                f"{folder}: it was made for another model; '{layer}' maps {wide} values to {high} there, and is {list(shape)} in the"
                " served one"
            )
