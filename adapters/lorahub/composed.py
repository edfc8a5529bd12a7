"""What LoRAHub found, worn and ready to be saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.adapted import Adapted
    from adapters.lorahub.composition import Module
    from adapters.lorahub.hub import LoRAHub


@dataclass(frozen=True)
class Composed:
    """A model that wears a composition of LoRAs: a plain LoRA of the same r and alpha."""

    adapted: Adapted
    sources: tuple[Module, ...]
    weights: tuple[float, ...]
    """One for each of ``sources``."""
    values: tuple[float, ...]
    """f(w) of each evaluation, in nats; the first at w = 0."""
    hub: LoRAHub

    @property
    def start(self) -> float:
        """f(0): the base model."""
        return self.values[0]

    @property
    def best(self) -> float:
        """f at ``weights``, never above ``start``."""
        return min(self.values)

    def save(self, folder: str | Path, card: Mapping[str, Any] | None = None) -> None:
        """Write it as a plain LoRA folder whose card tells the sources, their weights, the options, the seed and all values."""
        sources = [
            {"name": module.name, "weight": weight, "sha256": module.checksum}
            for module, weight in zip(self.sources, self.weights, strict=True)
        ]
        composed = {"by": "LoRAHub", "options": asdict(self.hub), "sources": sources, "values": list(self.values)}
        self.adapted.save(folder, {**(card or {}), "composed": composed, "metrics": {"start": self.start, "best": self.best}})
