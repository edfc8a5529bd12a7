"""What a frozen model wears: parameter-efficient methods by family, training, composition and the registry on disk.

``adapt(model, LoRA(r=16))``. Each method is a folder; its options are found by name, without torch.
"""

from __future__ import annotations

from typing import Any

_FACE = {
    "adapt": "adapters.adapted",
    "load": "adapters.adapted",
    "Adapted": "adapters.adapted",
    "Report": "adapters.adapted",
    "LoRAHub": "adapters.lorahub",
    "Registry": "adapters.registry",
}


def __getattr__(name: str) -> Any:
    import importlib

    from adapters.methods import registered
    from rag.core.errors import ConfigError

    if name in _FACE:
        return getattr(importlib.import_module(_FACE[name]), name)
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return registered(name)
    except ConfigError as error:
        raise AttributeError(str(error)) from None


def __dir__() -> list[str]:
    from adapters.methods import names

    return sorted([*_FACE, *names()])
