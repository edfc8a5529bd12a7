"""Encodes contexts by themselves, for a store of cross-attention's keys and values."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from generators.decoupled.model import DTYPES, EncoderDecoder
from rag.core.errors import InputError, PromptTooLong
from retrievers.context.encoded import Encoded, ModelIdentity


class DecoupledEncoder:
    """``model`` is a folder that `EncoderDecoder.save` wrote, loaded on first use.

    A context's keys and values are 2 × decoder layers × heads × d_kv numbers a token. Each context has a forward pass of its own: rows of a
    batch come out the same but for their last bits, and what is stored shall be what would be made now, bit for bit.
    """

    def __init__(self, model: str, dtype: str = "float32", device: str = "auto") -> None:
        if dtype not in DTYPES:
            raise InputError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
        self.model = model
        self.dtype = dtype
        self.device = device
        self._loading = threading.Lock()
        self._loaded: EncoderDecoder | None = None

    @classmethod
    def over(cls, model: EncoderDecoder) -> DecoupledEncoder:
        """An encoder with a model that is loaded already."""
        encoder = cls(model.name)
        encoder._loaded = model
        return encoder

    @property
    def loaded(self) -> EncoderDecoder:
        """The model. Raises what `EncoderDecoder.load` does."""
        with self._loading:
            if self._loaded is None:
                self._loaded = EncoderDecoder.load(self.model, self.dtype, self.device)
            return self._loaded

    @property
    def identity(self) -> ModelIdentity:
        """Whose keys and values `encode` makes (loads the model)."""
        return self.loaded.identity

    def tokenised(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each text. Raises `InputError` for one without tokens."""
        return [tuple(self.loaded.ids(text)) for text in texts]

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode each text by itself, on the CPU, in the model's number format.

        Raises `InputError` for a text without tokens, `PromptTooLong` for one with more than the model was trained for.
        """
        model = self.loaded
        contexts = self.tokenised(texts)
        for place, tokens in enumerate(contexts):
            if len(tokens) > model.window:
                raise PromptTooLong(
                    f"text {place} takes {len(tokens)} tokens; {model.name} was made for contexts of at most {model.window}: index"
                    " smaller passages"
                )
        return [model.encode(tokens) for tokens in contexts]
