"""Data sets from the Hugging Face hub, by the package `datasets`; their records are then read by the same formats as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag.core.errors import InputError, MissingDependency
from rag.evaluate.datasets.source import Source

PREFIX = "hub:"
_NAME = re.compile(r"(?P<name>[^@]+?)(?::(?P<config>[\w.-]+))?(?:@(?P<split>[\w.-]+))?")
_PREFERRED = ("validation", "dev", "test", "train")


def from_hub(address: str) -> Source:
    """The records of ``hub:NAME``, ``hub:NAME:CONFIG`` or ``hub:NAME:CONFIG@SPLIT``; NAME may be a local folder in the hub's layout.

    Without SPLIT the first of validation, dev, test, train that exists. Code from the hub is never run. Raises `MissingDependency` without
    the package, `InputError` if the name is malformed or the hub does not give the data (no network, unknown name, no such split).
    """
    match = _NAME.fullmatch(address.removeprefix(PREFIX))
    if match is None:
        raise InputError(f"{address!r} is no address on the hub; write hub:NAME, hub:NAME:CONFIG or hub:NAME:CONFIG@SPLIT")
    name, config, split = match["name"], match["config"], match["split"]
    splits = _download(address, name, config)
    if split is None:
        split = next((s for s in _PREFERRED if s in splits), None) or next(iter(splits), None)
    if split is None or split not in splits:
        raise InputError(f"{address}: there is no split '{split}'; there are: {', '.join(splits) or 'none'}. Write hub:{name}@SPLIT")
    rows: Sequence[Any] = [dict(row) for row in splits[split]]
    return Source(Path(f"{Path(name).name}{'-' + config if config else ''}-{split}"), rows)


def _download(address: str, name: str, config: str | None) -> Any:
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingDependency(
            f"{address}: reading from the Hugging Face hub needs the package datasets: pip install 'graft-rag[datasets]';"
            " or download the file and give its path"
        ) from error
    try:
        loaded: Any = datasets.load_dataset(name, config, trust_remote_code=False)
    except Exception as error:  # whatever the hub's client raises: no network, no such name, a gated set, a script that would run
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise InputError(
            f"{address}: the Hugging Face hub does not give it ({reason}). Check the name and the network,"
            " or download the file and give its path"
        ) from error
    return loaded
