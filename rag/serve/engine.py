"""What the command line says about a model server that `rag serve` starts itself (`generators.models.supervisor`)."""

from __future__ import annotations

from collections.abc import Sequence

from generators.models.server import Flag
from rag.core.errors import InputError

_SWITCHES = {"true": True, "false": False}


def engine_options(given: Sequence[str]) -> dict[str, Flag]:
    """The flags that ``["max-model-len=4096", "enforce-eager=true", …]`` means, for `Supervisor`, which checks names and values.

    "true" and "false" turn a flag on and off (``--name``, ``--no-name``); a name that comes again makes a list. Raises `InputError`.
    """
    values: dict[str, list[str]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError(f"an option of the engine is NAME=VALUE, such as max-model-len=4096 or enforce-eager=true, not {text!r}")
        values.setdefault(name.replace("_", "-"), []).append(value)
    return {name: texts if len(texts) > 1 else _SWITCHES.get(texts[0].lower(), texts[0]) for name, texts in values.items()}
