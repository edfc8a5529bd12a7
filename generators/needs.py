"""What a method needs of its model, checked when the pipeline is built."""

from __future__ import annotations

from rag.core.errors import MissingCapability
from rag.core.protocols import LanguageModel

_OFFERED_BY = "VLLM and Local offer it"


def check_offers(model: LanguageModel, method: str, capability: str, reason: str) -> None:
    """Raise `MissingCapability` unless ``model`` has ``capability``; ``reason`` says what ``method`` does with it."""
    if capability not in model.capabilities:
        offered = ", ".join(sorted(model.capabilities)) or "nothing beyond text"
        raise MissingCapability(
            f"{method} needs a model with '{capability}' {reason}; {type(model).__name__} offers {offered}; {_OFFERED_BY}"
        )
