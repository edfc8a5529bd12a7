"""The components that build a corpus: how it remembers them and gets them back, by registered names only."""

from __future__ import annotations

import json
from typing import Any, Protocol, runtime_checkable

from rag.core.errors import ConfigError, CorpusError, CorpusMismatch, InputError
from rag.core.registry import configuration, registered
from rag.core.types import Document, Passage
from retrievers.corpus.manifest import Part


@runtime_checkable
class Chunker(Protocol):
    """Cuts a document into passages, in order, with ids unique in the corpus. ``identity`` names the algorithm and its settings."""

    @property
    def identity(self) -> str: ...

    def chunk(self, document: Document) -> list[Passage]: ...


@runtime_checkable
class TermMaker(Protocol):
    """Cuts texts into terms (see `retrievers.analyzers.Analyzer`)."""

    @property
    def identity(self) -> str: ...

    def tokens(self, texts: list[str]) -> list[list[str]]: ...


def default_chunker() -> Chunker:
    """Picks the chunker by a document's format."""
    from retrievers.chunkers import AutoChunker

    chunker: Chunker = AutoChunker()
    return chunker


def describe(part: Any) -> Part:
    """What the corpus stores about a component. One that is not registered is known by its identity only."""
    if part is None:
        return Part()
    identity = getattr(part, "identity", None)
    if not isinstance(identity, str) or not identity:
        raise InputError(f"{type(part).__name__} has no identity; an encoder, analyzer or chunker needs one to be told from others")
    name = type(part).__name__
    try:
        if registered(name) is type(part):
            arguments = configuration(part)
            json.dumps(arguments)
            return Part(identity, name, arguments)
    except (ConfigError, TypeError, ValueError):
        pass
    return Part(identity)


def rebuild(part: Part, role: str, where: object) -> Any:
    """Build the component that a corpus was made with. Raises `CorpusError` if the caller has to hand it over."""
    if not part.component:
        raise CorpusError(
            f"{where} was built with a custom {role} ({part.identity}); hand it over: Corpus.open({str(where)!r}, {role}=...)"
        )
    _import_builtin(role)
    made = registered(part.component)(**part.arguments)
    check_identity(made, part, role, where)
    return made


def check_identity(given: Any, part: Part, role: str, where: object) -> None:
    """Raise `CorpusMismatch` if ``given`` is not what built the corpus."""
    if given.identity != part.identity:
        raise CorpusMismatch(
            f"{where}: the corpus was built with the {role} '{part.identity or 'none'}' and the {role} here is '{given.identity}'; their "
            f"results do not mix: open it with the {role} that built it, or index again into a new folder"
        )


def _import_builtin(role: str) -> None:
    """Import the module that registers the classes of a role."""
    if role == "chunker":
        import retrievers.chunkers
    elif role == "analyzer":
        import retrievers.analyzers
    else:
        import retrievers.encoders  # noqa: F401
