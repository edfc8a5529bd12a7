"""Every method on every architecture it is for: a new method is a folder and a few rows here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.adapters.tiny import NAMES


@dataclass(frozen=True)
class Row:
    """``method`` with ``options`` on the model ``on``; ``exact``: at the start the model answers as the base does, to the last bit."""

    method: str
    on: str
    options: tuple[tuple[str, Any], ...] = ()
    exact: bool = True
    exports: tuple[str, ...] = ()
    residual: float = 0.0
    """What a LoRA export may leave out."""

    def __str__(self) -> str:
        return f"{self.method}-{self.on}" + "".join(f"-{key}={value}" for key, value in self.options)


def rows(
    method: str, on: tuple[str, ...] = NAMES, exact: bool = True, exports: tuple[str, ...] = (), residual: float = 0.0, **options: Any
) -> list[Row]:
    """One row for each architecture."""
    return [Row(method, name, tuple(options.items()), exact, exports, residual) for name in on]


LORA, MERGED, BOTH = ("lora",), ("merged",), ("lora", "merged")

TABLE = [
    *rows("LoRA", exports=BOTH, r=4),
    *rows("LoRA", ("llama", "bert"), exports=BOTH, r=4, targets="all", rank_stabilised=True),
    *rows("AdaLoRA", exports=BOTH, init_r=4, target_r=2),
    *rows("DoRA", exports=BOTH, residual=1.0, r=4),
    *rows("SerialAdapter", exact=False, bottleneck=4),
    *rows("ParallelAdapter", bottleneck=4),
    *rows("PrefixTuning", exact=False, length=3),
    *rows("PTuning", exact=False, length=3),
    *rows("PTuningV2", exact=False, length=3),
    *rows("APrompt", exact=False),
    *rows("FishMask", exports=MERGED, ratio=0.05),
    *rows("ChildTuning", exports=MERGED, variant="D", p=0.2),
    *rows("ChildTuning", ("llama", "bert"), exports=MERGED, variant="F", p=0.2),
    *rows("BitFit", ("gpt2", "bert"), exports=MERGED),
    *rows("CrossAttention", ("t5",), exports=MERGED),
]
"""Every method that trains on a frozen model."""

REFUSED = [("BitFit", "llama"), ("BitFit", "t5"), ("CrossAttention", "llama"), ("CrossAttention", "gpt2"), ("CrossAttention", "bert")]
"""A method that finds nothing to train in a model says so."""
