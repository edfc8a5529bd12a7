"""A model's tokenizer and chat template in this process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from generators.models.checks import messages_json
from generators.models.embedded import resolve, without_progress_bars
from rag.core.errors import InputError, MissingCapability, MissingDependency, ModelError
from rag.core.types import Prompt


class PromptTokenizer:
    """``tokenizer`` is one of transformers; ``name`` is the model's, for errors. Thread-safe."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._lock = threading.Lock()  # tokenizers refuse concurrent use

    def ids(self, prompt: Prompt, special: bool = True) -> list[int]:
        """A chat by the model's template, up to where it answers; a text as it is, with the tokens that begin one if ``special``.

        Raises `MissingCapability` for a chat without a template, `InputError` for a prompt without tokens.
        """
        with self._lock:
            if isinstance(prompt, str):
                ids = self._tokenizer(prompt, add_special_tokens=special, verbose=False)["input_ids"]
            elif not self._tokenizer.chat_template:
                raise MissingCapability(f"{self._name} has no chat template; give a string as prompt, or a model trained for chat")
            else:
                ids = self._tokenizer.apply_chat_template(messages_json(prompt), add_generation_prompt=True, return_dict=True)["input_ids"]
        if not ids:
            raise InputError(f"{self._name} makes no token of {prompt!r}")
        return [int(token) for token in ids]

    def text(self, ids: Sequence[int]) -> str:
        """What ``ids`` spell, special tokens written out."""
        with self._lock:
            return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


class SameTokens:
    """The tokenizer ``name`` ("smollm2", a folder, or a Hugging Face id) in place of a server's, which it is compared with at first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loading = threading.Lock()
        self._loaded: PromptTokenizer | None = None
        self._agreed: set[tuple[str, bool, bool]] = set()

    def agreed(self, model: str, prompt: Prompt, special: bool) -> bool:
        """Whether a prompt of this kind, chat or text, was compared for ``model``, the served name of a model or an adapter."""
        return (model, isinstance(prompt, str), special) in self._agreed

    def compare(self, model: str, prompt: Prompt, special: bool, theirs: Sequence[int]) -> None:
        """Raise `ModelError` if the server makes other tokens, ``theirs``, of ``prompt``."""
        ours = self.ids(prompt, special)
        if ours != list(theirs):
            at = next((at for at, (one, other) in enumerate(zip(ours, theirs, strict=False)) if one != other), min(len(ours), len(theirs)))
            raise ModelError(
                f"the tokenizer '{self._name}' is not that of the served model '{model}': of one prompt it makes {len(ours)} tokens and the"
                f" server {len(theirs)}, and they differ from token {at} on; give the tokenizer of the model that is served, or none"
            )
        self._agreed.add((model, isinstance(prompt, str), special))

    def ids(self, prompt: Prompt, special: bool) -> list[int]:
        """As `PromptTokenizer.ids`."""
        return self._tokenizer().ids(prompt, special)

    def text(self, ids: Sequence[int]) -> str:
        """As `PromptTokenizer.text`."""
        return self._tokenizer().text(ids)

    def _tokenizer(self) -> PromptTokenizer:
        with self._loading:
            if self._loaded is None:
                self._loaded = PromptTokenizer(load_tokenizer(self._name), self._name)
            return self._loaded


def load_tokenizer(name: str) -> Any:
    """The tokenizer of "smollm2", of a folder, or of a Hugging Face id. Raises `ModelError`, `MissingDependency`."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingDependency(f"a tokenizer in this process needs transformers ({error}): pip install 'graft-rag[cpu]'") from error
    source = resolve(name)
    try:
        with without_progress_bars():
            return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot load the tokenizer '{name}': {str(error).strip()[:600]}") from error
