"""Options of link tokens: Yang et al., "KVLink: Accelerating LLMs via Efficient KV Cache Reuse", 2025 (arXiv 2502.16002)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.checks import check_rank
from adapters.methods import method
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class LinkTokens:
    """``count`` trained tokens stand behind every passage. They see all before them, which the passages, encoded apart, do not.

    A question reads in them what the passages have to do with each other. ``r`` above 0 trains a LoRA of that rank on all linear layers,
    with alpha ``2 r``, beside them: the paper trains the whole model. Without, text is read as by the base model, and so are passages:
    a store of the base model serves.
    """

    count: int = 5
    r: int = 0

    def __post_init__(self) -> None:
        check_rank(self.count, "LinkTokens", "count")
        if isinstance(self.r, bool) or not isinstance(self.r, int) or self.r < 0:
            raise InputError(f"LinkTokens: r is a whole number from 0, not {self.r!r}")

    def ids(self, vocabulary: int) -> tuple[int, ...]:
        """The new tokens of a model that has ids from 0 to ``vocabulary`` - 1."""
        return tuple(range(vocabulary, vocabulary + self.count))

    def attach(self, model: nn.Module) -> Worn:
        """New tokens behind the vocabulary. Raises `AdapterError` for a model that is no decoder."""
        from adapters.additive.link_tokens.tuner import LinkedModel

        return LinkedModel(model, self)
