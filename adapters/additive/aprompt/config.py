"""Options of APrompt: Wang et al., "APrompt: Attention Prompt Tuning for Efficient Adaptation of Pre-trained Language Models",
EMNLP 2023."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.checks import check_number
from adapters.methods import method
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class APrompt:
    """Three sets of trained vectors in the self-attention of each layer, seen by every token: input prompts (``input_length``) in front of
    the layer's input, query-key prompts (``query_key_length``) that only take attention, and key-value prompts (``key_value_length``).

    Our reading of the paper, which leaves the shapes open: query-key prompts have values of zero, and rows that no real token reads (the
    prompts' own queries) are not computed. All vectors are drawn from a normal around 0 with ``std``: the model answers differently from
    the start. Encoders of encoder-decoder models wear it, their decoders do not.
    """

    input_length: int = 10
    query_key_length: int = 10
    key_value_length: int = 10
    std: float = 0.02

    def __post_init__(self) -> None:
        for name in ("input_length", "query_key_length", "key_value_length"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"APrompt: {name} is a whole number from 0, not {value!r}")
        check_number(self.std, "std", "APrompt", least=0)

    def attach(self, model: nn.Module) -> Worn:
        """Prompts for each layer. Raises `AdapterError` if no block is found, or its attention cannot be given more keys."""
        from adapters.additive.aprompt.tuner import attach

        return attach(model, self)
