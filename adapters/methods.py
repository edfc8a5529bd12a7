"""The methods there are: each is a folder below a family's, with a ``config.py`` that registers its options. There is no list to edit."""

from __future__ import annotations

import importlib
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from adapters.contract import Method
from rag.core.errors import ConfigError

FAMILIES = ("additive", "selective", "reparameterised")

C = TypeVar("C", bound=type)
_registered: dict[str, type] = {}


def method(cls: C) -> C:
    """Register the dataclass ``cls`` as a method under its own name."""
    known = _registered.get(cls.__name__)
    if known is not None and known.__module__ != cls.__module__:
        raise ConfigError(f"two methods are called '{cls.__name__}': {known.__module__} and {cls.__module__}; rename one of them")
    _registered[cls.__name__] = cls
    return cls


@cache
def _folders() -> dict[str, str]:
    """The module that registers a method, by the method's name in lower case without underscores. Imports nothing."""
    here = Path(__file__).parent
    files = [file for family in FAMILIES for file in sorted((here / family).glob("*/config.py"))]
    return {file.parent.name.replace("_", ""): f"adapters.{file.parent.parent.name}.{file.parent.name}.config" for file in files}


def registered(name: str) -> type:
    """The class of the method ``name``; raises `ConfigError` that lists the known names."""
    if name not in _registered and (module := _folders().get(name.lower())):
        importlib.import_module(module)
    if name not in _registered:
        raise ConfigError(f"there is no method '{name}'; known are: {', '.join(names())}")
    return _registered[name]


def names() -> list[str]:
    """All methods, sorted; imports their options, and no torch."""
    for module in _folders().values():
        importlib.import_module(module)
    return sorted(_registered)


def arguments(chosen: Method) -> dict[str, Any]:
    """The options of ``chosen``, as JSON can hold them."""
    return asdict(chosen)  # type: ignore[call-overload, no-any-return]


def build(name: str, given: dict[str, Any]) -> Method:
    """The method ``name`` with the options ``given``; raises `ConfigError` for an unknown name or option."""
    cls = registered(name)
    allowed = [field.name for field in fields(cls)]
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise ConfigError(f"{name} has no option {', '.join(map(repr, unknown))}; allowed are: {', '.join(allowed)}")
    # JSON has no tuples
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})  # type: ignore[no-any-return]
