"""Names of components, for YAML. Only a registered class can be named; a name never becomes an import path.

``@component`` registers a class under its own name. The names that ``rag`` exports are found lazily: asking for one imports its module,
which registers it. A component keeps every constructor argument under an attribute of the same name: so its configuration can be read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

from rag.core.errors import ConfigError
from rag.core.typing import describe, protocol_methods

C = TypeVar("C", bound=type)

_registered: dict[str, type] = {}


def component(cls: C) -> C:
    """Register ``cls`` so that a YAML file may name it. Raises `ConfigError` if another class has the name."""
    known = _registered.get(cls.__name__)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigError(f"two components are called '{cls.__name__}': {known.__module__} and {cls.__module__}; rename one of them")
    _registered[cls.__name__] = cls
    return cls


def registered(name: str) -> type:
    """The class registered as ``name``; raises `ConfigError` that lists the known names."""
    if name not in _registered:
        import rag  # its table of public names is the only thing that may be imported on demand

        if name in rag.__all__:
            getattr(rag, name)
    if name not in _registered:
        raise ConfigError(f"there is no component '{name}'; known are: {', '.join(known_names())}")
    return _registered[name]


def known_names() -> list[str]:
    """All names that YAML may use, sorted; those of optional rooms included."""
    import rag

    return sorted({*_registered, *rag.COMPONENTS})


def configuration(instance: object) -> dict[str, Any]:
    """The constructor arguments of ``instance`` that differ from their defaults, read from its attributes.

    Raises `ConfigError` if the class does not keep an argument under its own name.
    """
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(instance)).parameters.items():
        if not hasattr(instance, name):
            raise ConfigError(
                f"{type(instance).__name__} does not keep its argument '{name}' as an attribute, so it cannot be written to YAML"
            )
        value = getattr(instance, name)
        if parameter.default is inspect.Parameter.empty or (value is not parameter.default and value != parameter.default):
            values[name] = value
    return values


def check_arguments(factory: Callable[..., Any], arguments: dict[str, Any], where: str) -> None:
    """Raise `ConfigError` if ``arguments`` has a key that ``factory`` does not take, or lacks one it needs."""
    parameters = inspect.signature(factory).parameters
    for key in arguments:
        if key not in parameters:
            raise ConfigError(f"{where}: unknown key '{key}'; allowed are: {', '.join(parameters)}")
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in arguments]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(repr(m) for m in missing)}; allowed are: {', '.join(parameters)}")


def check_parts(cls: type, arguments: dict[str, Any], where: str) -> None:
    """Raise `ConfigError` if something else stands where ``cls`` takes a component: its name as text, or a component of another kind."""
    try:
        hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    except NameError:  # types that the module imports for the checker alone
        return
    for key, value in arguments.items():
        wanted = [kind for kind in get_args(hints.get(key)) or (hints.get(key),) if kind is not type(None)]
        if value is None or not wanted or not all(_is_part(kind) for kind in wanted) or any(_serves(value, kind) for kind in wanted):
            continue
        kinds = " or ".join(map(describe, wanted))
        got = repr(value) if type(value).__module__ == "builtins" else type(value).__name__
        raise ConfigError(f"{where}: '{key}' takes a component ({kinds}), not {got}; write {{type: Name, …}} or {{ref: name}}")


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and (bool(protocol_methods(kind)) or kind in _registered.values())


def _serves(value: Any, kind: type) -> bool:
    methods = protocol_methods(kind)  # looked up on the class: a property of the instance may load a model or ask a server
    return all(hasattr(type(value), method) for method in methods) if methods else isinstance(value, kind)
