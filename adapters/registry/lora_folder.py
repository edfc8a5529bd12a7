"""A folder of LoRA, as PEFT and `adapters.folder` write it: what its configuration and its tensors' names and shapes say.

The configuration and the tensors must tell the same story, because the folder may come from anywhere. Nothing is unpickled.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from adapters import folder as disk
from rag.core.errors import AdapterDamaged, AdapterError

if TYPE_CHECKING:
    from adapters.contract import State

    Shapes = Mapping[str, tuple[int, ...]]

PREFIX = "base_model.model."
_TENSOR = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<factor>[AB])\.weight")
_MAGNITUDE = ".lora_magnitude_vector"
HARMLESS_STARTS = (None, True, False, "gaussian", "orthogonal", "eva", "mica", "lora_ga")
"""Of ``init_lora_weights``: those with which a saved adapter is plain LoRA on the unchanged base model (as vLLM 0.32 has it)."""


@dataclass(frozen=True)
class LoraFolder:
    """What a folder of LoRA holds. ``shapes`` are those of A [r, in] and B [out, r] by the name of the layer in the base model."""

    r: int
    alpha: float
    dropout: float
    rank_stabilised: bool
    dora: bool
    bias: str
    base: str
    """Name of the base model, "" if the configuration has none."""
    shapes: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]

    @property
    def plain(self) -> bool:
        """Neither DoRA nor trained biases: B A is all there is."""
        return not self.dora and self.bias == "none"


def tensor_names(layer: str) -> tuple[str, str]:
    """PEFT's names of A and B for a layer of the base model."""
    return f"{PREFIX}{layer}.lora_A.weight", f"{PREFIX}{layer}.lora_B.weight"


def read_header(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a safetensors file, from its header. Raises `AdapterDamaged` if header and file do not agree."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterDamaged(f"{file} cannot be read as safetensors: {error}") from error


def inspect(folder: Path) -> LoraFolder:
    """What ``folder`` holds, from its configuration and the header of its weights; no tensor is read.

    Raises `AdapterError` if it is no LoRA folder or has what is not known here, `AdapterDamaged` if its parts do not agree.
    """
    if not (folder / disk.CONFIG).is_file():
        raise AdapterError(f"{folder}: there is no adapter ({disk.CONFIG} is missing)")
    config = disk.read_config(folder)
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{folder}: its method is {config.get('peft_type')!r}; of PEFT's methods only 'LORA' is read here")
    if not (folder / disk.WEIGHTS).is_file():
        raise AdapterError(f"{folder}: {disk.WEIGHTS} is missing{_pickle_hint(folder)}")
    return describe(folder, config, read_header(folder / disk.WEIGHTS))


def read(folder: Path) -> tuple[LoraFolder, State]:
    """What `inspect` tells, and the tensors under PEFT's names; where there is a card, its checksums are checked. Raises as `inspect`."""
    found = inspect(folder)
    if not (folder / disk.CARD).is_file():
        return found, disk.read_safetensors(folder / disk.WEIGHTS)
    state, head = disk.read_weights(folder)
    if head:
        raise AdapterError(f"{folder} brings a head of its own ({', '.join(sorted(head)[:3])}), so it is not LoRA alone")
    return found, state


def describe(folder: Path, config: Mapping[str, Any], shapes: Shapes) -> LoraFolder:
    """``config`` and the tensors' ``shapes`` as one description. Raises as `inspect`."""
    _refuse_unknown(folder, config)
    r, alpha, dropout = config.get("r"), config.get("lora_alpha"), config.get("lora_dropout", 0.0)
    if isinstance(r, bool) or not isinstance(r, int) or r < 1:
        raise AdapterDamaged(f"{folder / disk.CONFIG}: r is a whole number from 1, not {r!r}")
    if not _is_number(alpha) or not _is_number(dropout):
        raise AdapterDamaged(f"{folder / disk.CONFIG}: lora_alpha and lora_dropout are numbers, not {alpha!r} and {dropout!r}")
    dora, bias = bool(config.get("use_dora")), str(config.get("bias") or "none")
    layers = _layers(folder, shapes, r, dora, bias != "none")
    _check_targets(folder, config.get("target_modules"), layers)
    base = config.get("base_model_name_or_path")
    return LoraFolder(
        r, float(alpha), float(dropout), bool(config.get("use_rslora")), dora, bias, base if isinstance(base, str) else "", layers
    )


def _refuse_unknown(folder: Path, config: Mapping[str, Any]) -> None:
    for key in ("rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "trainable_token_indices", "target_parameters"):
        if config.get(key):
            raise AdapterError(
                f"{folder / disk.CONFIG}: '{key}' is set; only LoRA with one r and one alpha for all its layers is read here"
            )
    start = config.get("init_lora_weights")
    if start not in HARMLESS_STARTS:
        raise AdapterError(
            f"{folder / disk.CONFIG}: init_lora_weights is {start!r}, which changes the base model's weights;"
            " save it with PEFT's path_initial_model_for_weight_conversion, which makes plain LoRA of it"
        )


def _layers(folder: Path, shapes: Shapes, r: int, dora: bool, biases: bool) -> dict[str, tuple[tuple[int, int], tuple[int, int]]]:
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for name, shape in shapes.items():
        matched = _TENSOR.fullmatch(name)
        if matched is None:
            if (dora and name.endswith(_MAGNITUDE)) or (biases and name.endswith(".bias")):
                continue
            raise AdapterError(
                f"{folder / disk.WEIGHTS}: '{name}' is no tensor of LoRA; they are called {PREFIX}LAYER.lora_A.weight, lora_B"
            )
        factor = matched["factor"]
        if len(shape) != 2 or shape[0 if factor == "A" else 1] != r:
            wanted = f"[{r}, in]" if factor == "A" else f"[out, {r}]"
            raise AdapterDamaged(f"{folder / disk.WEIGHTS}: '{name}' has the shape {list(shape)}, not {wanted}: r is {r}")
        found.setdefault(matched["layer"], {})[factor] = (shape[0], shape[1])
    if not found:
        raise AdapterDamaged(f"{folder / disk.WEIGHTS} holds no LoRA")
    single = [layer for layer, factors in found.items() if len(factors) != 2]
    if single:
        raise AdapterDamaged(f"{folder / disk.WEIGHTS}: '{single[0]}' has only one of lora_A and lora_B")
    return {layer: (found[layer]["A"], found[layer]["B"]) for layer in sorted(found)}


def _check_targets(folder: Path, targets: Any, layers: Mapping[str, Any]) -> None:
    """A list of targets is endings of names; a text is a pattern, which is not run: it comes from outside."""
    if isinstance(targets, str):
        return
    if not isinstance(targets, list) or not all(isinstance(target, str) and target for target in targets):
        raise AdapterDamaged(f"{folder / disk.CONFIG}: target_modules is a list of names or a pattern, not {targets!r}")
    endings = tuple(f".{target}" for target in targets)
    stray = [layer for layer in layers if not f".{layer}".endswith(endings)]
    unused = [target for target, ending in zip(targets, endings, strict=True) if not any(f".{layer}".endswith(ending) for layer in layers)]
    if stray or unused:
        raise AdapterDamaged(
            f"{folder}: target_modules and the tensors do not agree; layers that no target names: {', '.join(stray[:3]) or 'none'},"
            f" targets without a layer: {', '.join(unused[:3]) or 'none'}"
        )


def _is_number(value: Any) -> TypeGuard[float]:
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


def _pickle_hint(folder: Path) -> str:
    pickled = sorted(file.name for file in folder.glob("adapter_model.*") if file.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt"))
    if not pickled:
        return ""
    return (
        f"; {pickled[0]} is a pickle, which may run code when it is read, and is not opened:"
        " load it with PEFT where you trust it, and save_pretrained writes safetensors"
    )
