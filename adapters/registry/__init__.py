"""Adapters on disk by name: take in, list, show, remove, export."""

from __future__ import annotations

from adapters.registry.entry import Entry
from adapters.registry.registry import Registry
from adapters.registry.servable import servable

__all__ = ["Entry", "Registry", "servable"]
