"""Adapters of a model in process: one is worn at a time, and changed between two batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.core.errors import MissingCapability, MissingDependency

if TYPE_CHECKING:
    from adapters.adapted import Adapted
    from adapters.contract import Worn


class Wardrobe:
    """``model`` and what it wears. Not thread-safe: the one worker that runs the model asks.

    ``links``: whoever calls the model puts link tokens behind passages, if what it wears has such.
    """

    def __init__(self, model: Any, links: bool = False) -> None:
        self._bare = model
        self._links = links
        self._name: str | None = None
        self._worn: Adapted | None = None

    def wearing(self, adapter: str | None) -> Any:
        """The model to call for ``adapter``: a folder or a name in the registry; None for the bare model.

        Raises the errors of `adapters.load`, and `MissingCapability` for a method that puts vectors in front of the prompt.
        """
        if adapter != self._name:
            self._undress()
            if adapter is not None:
                self._worn = self._dressed(adapter)
                self._name = adapter
        return self._worn.model if self._worn is not None else self._bare

    @property
    def worn(self) -> Worn | None:
        """What the model wears now."""
        return self._worn.worn if self._worn is not None else None

    def _undress(self) -> None:
        if self._worn is not None:
            self._worn.remove()
        self._worn = self._name = None

    def _dressed(self, adapter: str) -> Adapted:
        try:
            from adapters.adapted import load
            from adapters.contract import Links
            from adapters.peft_methods import PeftPrompt
        except ImportError as error:
            raise MissingDependency(f"adapters need torch and peft ({error}): pip install 'graft-rag[adapters]'") from error
        worn = load(self._bare, folder_of(adapter))
        if isinstance(worn.worn, PeftPrompt):
            worn.remove()
            raise MissingCapability(
                f"{adapter} is {type(worn.method).__name__}, whose vectors stand in front of the prompt; Local writes with what changes"
                " layers (LoRA and its kin, adapters, masks): call `adapters.load(model, folder).model.generate` for this one"
            )
        if isinstance(worn.worn, Links) and not self._links:
            worn.remove()
            raise MissingCapability(
                f"{adapter} is {type(worn.method).__name__}: its tokens stand behind passages that are encoded apart; answer with Stitched"
            )
        worn.model.eval()
        return worn


def folder_of(adapter: str) -> Path:
    """The folder of an adapter that is given as a folder or by its name in the registry."""
    path = Path(adapter).expanduser()
    if path.is_dir():
        return path
    from adapters.registry import Registry

    return Registry().path(adapter)
