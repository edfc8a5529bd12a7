"""Where the parts of a transformer are, whatever its author called them.

LLaMA-like models (LLaMA, Mistral, Qwen, SmolLM, Gemma, …), GPT-2, BERT-like encoders and T5 are known; a model that has none of their
shapes is refused with what was looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from rag.core.errors import AdapterError


@dataclass(frozen=True)
class Sublayer:
    """Attention or feed-forward: names of modules in the base model."""

    name: str
    """What takes the sublayer's input (after the norm where the norm comes first)."""
    inner: tuple[str, ...]
    """The linear layers that read that input: q, k, v, or the first of the feed-forward."""
    output: str
    """The linear layer at the end, before the residual is added."""


@dataclass(frozen=True)
class Block:
    """One layer of the encoder or the decoder."""

    name: str
    attention: Sublayer
    feed_forward: Sublayer
    cross_attention: Sublayer | None = None
    decoder: bool = False


def blocks(model: nn.Module) -> list[Block]:
    """All blocks, encoder first. Raises `AdapterError` if there are none that are known."""
    found = [block for name, module in model.named_modules() if (block := _block(name, module)) is not None]
    if not found:
        raise AdapterError(
            f"{type(model).__name__}: no transformer block was found; looked for blocks with self_attn and mlp (LLaMA-like), attn and mlp"
            f" (GPT-2), attention, intermediate and output (BERT-like) or a list `layer` with SelfAttention (T5)"
        )
    return found


def _block(name: str, module: nn.Module) -> Block | None:
    for shape in (_llama, _gpt2, _bert, _t5):
        found = shape(name, module)
        if found is not None:
            return found
    return None


def _llama(name: str, module: Any) -> Block | None:
    if not _has(module, "self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"):
        return None
    inner = ("gate_proj", "up_proj") if _has(module, "mlp.gate_proj") else ("up_proj",)
    return Block(
        name,
        _sublayer(f"{name}.self_attn", ("q_proj", "k_proj", "v_proj"), "o_proj"),
        _sublayer(f"{name}.mlp", inner, "down_proj"),
        decoder=True,
    )


def _gpt2(name: str, module: Any) -> Block | None:
    if not _has(module, "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        return None
    crossed = _has(module, "crossattention.c_attn")
    return Block(
        name,
        _sublayer(f"{name}.attn", ("c_attn",), "c_proj"),
        _sublayer(f"{name}.mlp", ("c_fc",), "c_proj"),
        _sublayer(f"{name}.crossattention", ("q_attn", "c_attn"), "c_proj") if crossed else None,
        decoder=True,
    )


def _bert(name: str, module: Any) -> Block | None:
    if not _has(module, "attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"):
        return None
    crossed = _has(module, "crossattention.self.query")
    three = ("self.query", "self.key", "self.value")
    return Block(
        name,
        Sublayer(f"{name}.attention", tuple(f"{name}.attention.{part}" for part in three), f"{name}.attention.output.dense"),
        Sublayer(f"{name}.intermediate", (f"{name}.intermediate.dense",), f"{name}.output.dense"),
        Sublayer(f"{name}.crossattention", tuple(f"{name}.crossattention.{part}" for part in three), f"{name}.crossattention.output.dense")
        if crossed
        else None,
        decoder=bool(getattr(module, "is_decoder", False)),
    )


def _t5(name: str, module: Any) -> Block | None:
    if not _has(module, "layer.0.SelfAttention.q") or not re.search(r"block\.\d+$", name):
        return None
    last = len(module.layer) - 1
    dense = f"layer.{last}.DenseReluDense"
    inner = ("wi_0", "wi_1") if _has(module, f"{dense}.wi_0") else ("wi",)
    crossed = _has(module, "layer.1.EncDecAttention.q")
    return Block(
        name,
        _sublayer(f"{name}.layer.0.SelfAttention", ("q", "k", "v"), "o"),
        _sublayer(f"{name}.{dense}", inner, "wo"),
        _sublayer(f"{name}.layer.1.EncDecAttention", ("q", "k", "v"), "o") if crossed else None,
        decoder=crossed,
    )


def _sublayer(name: str, inner: Iterable[str], output: str) -> Sublayer:
    return Sublayer(name, tuple(f"{name}.{part}" for part in inner), f"{name}.{output}")


def _has(module: nn.Module, *paths: str) -> bool:
    for path in paths:
        at: Any = module
        for part in path.split("."):
            at = at[int(part)] if part.isdigit() and isinstance(at, nn.ModuleList) and int(part) < len(at) else getattr(at, part, None)
            if at is None:
                return False
    return True


def linears(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The linear layers inside the blocks, by name. GPT-2's ``Conv1D`` keeps its weight as [in, out]."""
    from transformers.pytorch_utils import Conv1D

    inside = tuple(f"{block.name}." for block in blocks(model))
    for name, module in model.named_modules():
        if name.startswith(inside) and isinstance(module, nn.Linear | Conv1D):
            yield name, module


def width(module: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear layer of either kind. Raises `AdapterError` for another module."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != 2:
        raise AdapterError(f"{type(module).__name__} is no linear layer")
    rows, columns = weight.shape
    return (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)


def heads(model: nn.Module) -> tuple[str, ...]:
    """Names of modules that a task brings along and a base model has none of: a classification or question-answering head.

    Trained beside any method. The output embeddings of a language model are not among them.
    """
    known = ("classifier", "score", "qa_outputs", "classification_head")
    return tuple(name for name, _ in model.named_children() if name in known)
