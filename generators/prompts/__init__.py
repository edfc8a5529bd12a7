"""Prompt texts, one file per name and language: ``<name>.<en|zh>.txt`` beside this module.

A template holds ``{field}`` placeholders and nothing else that is special: no expressions, no conditions. All placeholders are filled in
one pass, so the braces inside a passage or a question stay what they are.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from rag.core.errors import ConfigError

_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_]+)*")
_FIELD = re.compile(r"\{([a-z_]+)\}")


def render(name: str, language: str, **fields: str) -> str:
    """The template ``name`` in ``language`` with its placeholders filled.

    Raises `ConfigError` if there is no such template, or if ``fields`` are not exactly the placeholders that it has.
    """
    template = _template(name, language)
    wanted = set(_FIELD.findall(template))
    if wanted != set(fields):
        raise ConfigError(f"prompt '{name}.{language}' takes the fields {sorted(wanted)}, not {sorted(fields)}")
    return _FIELD.sub(lambda match: fields[match[1]], template)


@cache
def _template(name: str, language: str) -> str:
    file = files(__package__).joinpath(f"{name}.{language}.txt")
    if not _NAME.fullmatch(name) or not _NAME.fullmatch(language) or not file.is_file():
        raise ConfigError(f"there is no prompt '{name}' in language '{language}' ({file})")
    return file.read_text(encoding="utf-8").removesuffix("\n")
