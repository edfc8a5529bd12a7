"""Ports, read from signatures: the signature is the schema.

A node is a function, or any object with a ``run`` method. Its parameters are input ports, its return annotation is the output:

- a parameter with a default is an optional port;
- ``*rankings: list[Hit]`` is a many-to-one port, fed by any number of edges in the order they were connected;
- a return type that is a dataclass or a NamedTuple offers each field as an output of its own (``"answer.text"``);
- a return type ``Branch[Literal["short", "long"], str]`` offers one output per label, of which a run takes one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

from rag.core.errors import GraphError
from rag.core.typing import describe

L = TypeVar("L")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Branch(Generic[L, T]):
    """A conditional output: only the edges from ``"node.<label>"`` carry ``value``; what hangs on the other labels alone is skipped."""

    label: L
    value: T


@dataclass(frozen=True, slots=True)
class Port:
    """One input of a node."""

    name: str
    type: Any
    required: bool
    many: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """The ports of a node. ``outputs`` maps "" to the whole result and each field or label to its own type."""

    inputs: dict[str, Port]
    outputs: dict[str, Any]
    labels: frozenset[str]
    function: Callable[..., Any]
    is_async: bool


def signature_of(name: str, node: object) -> Signature:
    """Read the ports of ``node``, called ``name`` in errors. Raises `GraphError` if it has no typed ``run``."""
    function = node if inspect.isfunction(node) or inspect.ismethod(node) else getattr(node, "run", None)
    if isinstance(node, type) or not callable(function):
        hint = "an instance, not the class itself" if isinstance(node, type) else "a function or an object with a typed `run` method"
        raise GraphError(f"node '{name}': {describe(type(node))} is not a node; give {hint}")
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise GraphError(
            f"node '{name}': the annotations of {function.__qualname__} cannot be resolved ({error}); import their types at run time"
        ) from None
    inputs: dict[str, Port] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD or parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise GraphError(
                f"node '{name}': parameter '{parameter.name}' of {function.__qualname__} must be a plain, keyword-only or *many parameter"
            )
        if parameter.name not in hints:
            raise GraphError(f"node '{name}': parameter '{parameter.name}' of {function.__qualname__} has no type; annotate it")
        many = parameter.kind is inspect.Parameter.VAR_POSITIONAL
        required = many or parameter.default is inspect.Parameter.empty
        inputs[parameter.name] = Port(parameter.name, hints[parameter.name], required, many)
    _check_positions(name, inputs, function)
    returned = hints.get("return", type(None))
    if returned is type(None):
        raise GraphError(f"node '{name}': {function.__qualname__} must say what it returns (a return annotation other than None)")
    outputs, labels = _outputs(name, returned)
    return Signature(inputs, outputs, labels, function, inspect.iscoroutinefunction(function))


def _check_positions(name: str, inputs: dict[str, Port], function: Callable[..., Any]) -> None:
    """Everything is passed by name, so a parameter in front of ``*many`` could not be filled without shifting it."""
    names = list(inputs)
    for index, port in enumerate(inputs.values()):
        if port.many and index:
            raise GraphError(f"node '{name}': put '*{port.name}' first in {function.__qualname__} and {', '.join(names[:index])} after it")


def _outputs(name: str, returned: Any) -> tuple[dict[str, Any], frozenset[str]]:
    if get_origin(returned) is Branch:
        label_type, value_type = get_args(returned)
        if get_origin(label_type) is not Literal:
            raise GraphError(f"node '{name}': write its branches as Branch[Literal['one', 'other'], type], not {describe(returned)}")
        labels = get_args(label_type)
        return {"": returned, **dict.fromkeys(labels, value_type)}, frozenset(labels)
    outputs = {"": returned}
    if dataclasses.is_dataclass(returned) and isinstance(returned, type):
        hints = get_type_hints(returned)
        outputs.update({f.name: hints[f.name] for f in dataclasses.fields(returned)})
    elif isinstance(returned, type) and issubclass(returned, tuple) and hasattr(returned, "_fields"):
        outputs.update(get_type_hints(returned))
    return outputs, frozenset()
