"""FLARE's settings for each data set of its paper (tables 7 and 9 of arXiv 2305.06983). The retriever is the user's."""

from __future__ import annotations

from typing import Any

from rag.core.errors import InputError

_LONG = {"theta": 0.8, "beta": 0.4, "query": "explicit", "keep_first": True}

PRESETS: dict[str, dict[str, Any]] = {
    "2wiki": {"theta": 0.8, "beta": 0.4, "query": "implicit", "k": 2, "max_tokens": 256, "task": "reasoning"},
    "strategyqa": {"theta": 0.4, "beta": 0.4, "query": "implicit", "k": 3, "max_tokens": 256, "task": "yes_no"},
    "asqa": {**_LONG, "k": 3, "max_tokens": 256, "task": "ambiguous"},
    "asqa-hint": {**_LONG, "k": 3, "max_tokens": 256, "task": "ambiguous"},  # the hint is part of the question
    "wikiasp": {**_LONG, "k": 5, "max_tokens": 512, "task": "summary"},
}


def preset(name: str) -> dict[str, Any]:
    """The constructor arguments for ``name``; raises `InputError` that lists the names."""
    if name not in PRESETS:
        raise InputError(f"there is no preset '{name}' of Flare; known are: {', '.join(PRESETS)}")
    return PRESETS[name]
