"""LoRAHub: adapters that are there, weighted for a new task by a few of its examples."""

from __future__ import annotations

from adapters.lorahub.examples import read_examples
from adapters.lorahub.hub import LoRAHub

__all__ = ["LoRAHub", "read_examples"]
