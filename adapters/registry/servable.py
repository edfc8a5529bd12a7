"""Would vLLM serve this adapter? It takes plain LoRA only (vllm/lora/peft_helper.py, version 0.32)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapters import folder as disk
from adapters.registry.lora_folder import HARMLESS_STARTS
from rag.core.errors import AdapterDamaged, InputError

SERVER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM allows for --max-lora-rank."""

_EXPORT = {
    "lora": "write it as plain LoRA: rag adapters export NAME lora",
    "merged": "write it as a model: rag adapters export NAME merged",
}

_REFUSED = ("lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora")


def servable(folder: str | Path, max_rank: int = 16) -> str | None:
    """None if vLLM with ``--max-lora-rank max_rank`` (its default is 16) takes the adapter in ``folder``; else why not, and what to do.

    Raises `InputError` for a rank that vLLM does not know, `AdapterDamaged` if the folder's configuration cannot be read.
    """
    if max_rank not in SERVER_RANKS:
        raise InputError(f"max_rank is one of {', '.join(map(str, SERVER_RANKS))} (vLLM's --max-lora-rank), not {max_rank!r}")
    path = Path(folder)
    config = disk.read_config(path)
    if config.get("peft_type") != "LORA":
        return _no_lora(path, config)
    return _flags(path, config) or _rank(path, config, max_rank)


def _no_lora(folder: Path, config: dict[str, Any]) -> str:
    card = disk.read_card(folder) if (folder / disk.CARD).is_file() else {}
    method = card.get("method") or config.get("peft_type")
    offered = card.get("exports")
    if offered is None:
        return f"{method} is no plain LoRA; {_EXPORT['lora']}, or merged, if the method has that form; else it is worn in process only"
    ways = [_EXPORT[form] for form in offered if form in _EXPORT]
    return f"{method} is no plain LoRA; {' or '.join(ways) or 'it is worn in process only'}"


def _flags(folder: Path, config: dict[str, Any]) -> str | None:
    if config.get("use_dora"):
        return f"vLLM refuses DoRA (use_dora); {_EXPORT['lora']} (an approximation) or {_EXPORT['merged']}"
    if config.get("bias", "none") != "none":
        return f"vLLM refuses trained biases (bias is {config['bias']!r}); train with bias='none', or {_EXPORT['merged']}"
    extra = [str(name) for name in config.get("modules_to_save") or () if name not in ("classifier", "score")]
    if extra:
        return f"vLLM refuses modules_to_save ({', '.join(extra)}); train without, or {_EXPORT['merged']}"
    if config.get("init_lora_weights") not in HARMLESS_STARTS:
        start = config["init_lora_weights"]
        return f"vLLM refuses init_lora_weights {start!r}; convert it with PEFT's path_initial_model_for_weight_conversion"
    refused = [key for key in _REFUSED if config.get(key)]
    if refused:
        return f"vLLM refuses {refused[0]}; train without, or merge it with PEFT"
    if (folder / disk.HEAD).is_file():
        return f"vLLM would leave its head out ({disk.HEAD}); {_EXPORT['merged']}"
    if config.get("task_type") == "SEQ_2_SEQ_LM" or _encoder_decoder(config.get("target_modules")):
        return "vLLM serves no LoRA on an encoder-decoder model; it is worn in process only"
    return None


def _encoder_decoder(targets: Any) -> bool:
    """Full names, as graft writes them, tell; endings such as "q" do not."""
    return isinstance(targets, list) and any(str(target).startswith(("encoder.block.", "decoder.block.")) for target in targets)


def _rank(folder: Path, config: dict[str, Any], max_rank: int) -> str | None:
    pattern = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [pattern])]
    if not all(isinstance(rank, int) for rank in ranks):
        raise AdapterDamaged(f"{folder / disk.CONFIG}: r and rank_pattern are whole numbers, not {ranks[:3]!r}")
    r = max(ranks)
    if r <= max_rank:
        return None
    enough = [rank for rank in SERVER_RANKS if rank >= r]
    if not enough:
        return f"its rank {r} is above {SERVER_RANKS[-1]}, the most that vLLM takes; {_EXPORT['merged']}"
    return f"its rank {r} is above the server's {max_rank}; start vLLM with --max-lora-rank {enough[0]}"
