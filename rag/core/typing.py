"""Whether a value of one annotated type may travel into a port of another, and how to name types in messages."""

from __future__ import annotations

import collections.abc
import inspect
import types
from typing import Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, is_typeddict

_NUMERIC_TOWER = {float: (int,), complex: (int, float)}  # PEP 484: an int is accepted where a float is


def describe(annotation: Any) -> str:
    """A short name for messages: ``list[Hit]``, ``str | None``."""
    if annotation is type(None):
        return "None"
    if _is_union(annotation):
        return " | ".join(describe(a) for a in get_args(annotation))
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin is not None:
        inner = ", ".join("..." if a is ... else describe(a) if not isinstance(a, list) else str(a) for a in args)
        return f"{getattr(origin, '__name__', str(origin))}[{inner}]"
    return getattr(annotation, "__name__", str(annotation))


def fits(source: Any, target: Any) -> bool:
    """Whether every value of type ``source`` is welcome in a port of type ``target``. Containers are covariant: they are never mutated."""
    source, target = _plain(source), _plain(target)
    if target in (Any, object) or source is Any or source == target:
        return True
    if _is_union(source):
        return all(fits(member, target) for member in get_args(source))
    if _is_union(target):
        return any(fits(source, member) for member in get_args(target))
    if get_origin(source) is Literal:
        if get_origin(target) is Literal:
            return set(get_args(source)) <= set(get_args(target))
        return all(fits(type(value), target) for value in get_args(source))
    if get_origin(target) is Literal:
        return False
    return _classes_fit(source, target)


def accepts(target: Any, value: object) -> bool:
    """Whether ``value`` may enter a port of type ``target``; container contents are not looked at (a run costs the same at any size)."""
    target = _plain(target)
    if target in (Any, object):
        return True
    if _is_union(target):
        return any(accepts(member, value) for member in get_args(target))
    if get_origin(target) is Literal:
        return value in get_args(target)
    if isinstance(value, bool) and target in (int, float):
        return False
    return fits(type(value), get_origin(target) or target)


def _classes_fit(source: Any, target: Any) -> bool:
    source_class, target_class = get_origin(source) or source, get_origin(target) or target
    if not (isinstance(source_class, type) and isinstance(target_class, type)):
        return False
    if not _is_subclass(source_class, target_class):
        return False
    return _arguments_fit(source_class, get_args(source), target_class, get_args(target))


def _arguments_fit(source_class: type, source_args: tuple[Any, ...], target_class: type, target_args: tuple[Any, ...]) -> bool:
    if not source_args or not target_args:
        return True  # an unparameterised container says nothing about its contents
    if issubclass(source_class, tuple) and not issubclass(target_class, tuple):  # tuple[X, ...] or tuple[X, Y] into Sequence[Z]
        return all(fits(argument, target_args[0]) for argument in source_args if argument is not ...)
    if issubclass(source_class, tuple) and target_args[-1] is ...:
        return all(fits(argument, target_args[0]) for argument in source_args if argument is not ...)
    if issubclass(source_class, collections.abc.Mapping) and len(target_args) == 1:  # a mapping iterates over its keys
        return fits(source_args[0], target_args[0])
    return len(source_args) == len(target_args) and all(fits(s, t) for s, t in zip(source_args, target_args, strict=True))


def _is_subclass(source: type, target: type) -> bool:
    if source in _NUMERIC_TOWER.get(target, ()):
        return True
    if is_typeddict(target):
        return source is target
    if is_typeddict(source):
        return issubclass(dict, target)
    try:
        return issubclass(source, target)
    except TypeError:  # a protocol with data members: compare what it asks for by name
        return all(hasattr(source, member) for member in protocol_members(target))


def protocol_methods(annotation: Any) -> list[str]:
    """Names of the public methods of a Protocol class; empty for anything else."""
    if not (isinstance(annotation, type) and issubclass(annotation, Protocol) and getattr(annotation, "_is_protocol", False)):
        return []
    return [m for m in protocol_members(annotation) if inspect.isfunction(getattr(annotation, m, None))]


def protocol_members(annotation: type) -> list[str]:
    """Names of the public members that a Protocol class and its bases ask for, in order."""
    names: dict[str, None] = {}
    for base in reversed(annotation.__mro__):
        if getattr(base, "_is_protocol", False) and base is not Protocol:
            names.update(dict.fromkeys(n for n in [*vars(base), *getattr(base, "__annotations__", {})] if not n.startswith("_")))
    return list(names)


def _plain(annotation: Any) -> Any:
    if isinstance(annotation, TypeVar):
        return annotation.__bound__ or Any
    if annotation is None:
        return type(None)
    supertype = getattr(annotation, "__supertype__", None)  # NewType
    return supertype if supertype is not None else annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)
