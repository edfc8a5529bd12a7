"""Encodes passages by themselves, for a store of keys and values."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import torch

from generators.models.stitched.decoder import DTYPES, Decoder, load
from rag.core.errors import InputError, PromptTooLong
from retrievers.context.encoded import Encoded, ModelIdentity


class LocalEncoder:
    """``model`` ("smollm2", a folder, a Hugging Face id; loaded on first use), wearing ``adapter`` if one is named.

    A passage is encoded as its bare tokens from position 0: no beginning-of-text token, no chat template. Special tokens would be
    attended to once per passage when passages are joined (each first token draws attention as a sink); a prompt's own beginning is a block
    of its own in front of them, encoded in the same way (`encode_tokens`).

    ``batch_tokens`` bounds the tokens, padding included, of one forward pass; a longer passage goes alone.
    """

    def __init__(
        self, model: str = "smollm2", adapter: str | None = None, dtype: str = "float32", device: str = "auto", batch_tokens: int = 2048
    ) -> None:
        if dtype not in DTYPES:
            raise InputError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
        if batch_tokens < 1:
            raise InputError(f"batch_tokens is a whole number of at least 1, not {batch_tokens!r}")
        self.model = model
        self.adapter = adapter
        self.dtype = dtype
        self.device = device
        self.batch_tokens = batch_tokens
        self._loading = threading.Lock()
        self._decoder: Decoder | None = None

    @classmethod
    def over(cls, decoder: Decoder, batch_tokens: int = 2048) -> LocalEncoder:
        """An encoder with a decoder that is loaded already."""
        encoder = cls(decoder.name, batch_tokens=batch_tokens)
        encoder._decoder = decoder
        return encoder

    @property
    def decoder(self) -> Decoder:
        """The model, loaded on first use. Raises what `stitched.decoder.load` does."""
        with self._loading:
            if self._decoder is None:
                self._decoder = load(self.model, self.adapter, self.dtype, self.device)
            return self._decoder

    @property
    def identity(self) -> ModelIdentity:
        """Whose keys and values `encode` makes (loads the model)."""
        return self.decoder.identity

    def tokenised(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The bare tokens of each text. Raises `InputError` for one without tokens."""
        return [tuple(self.decoder.tokens.ids(text, special=False)) for text in texts]

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Encode each text by itself, on the CPU, in the model's number format; the result is in the order of ``texts``.

        Raises `InputError` for a text without tokens, `PromptTooLong` for one that passes the window, `ModelError` when memory is short.
        """
        return self.encode_tokens(self.tokenised(texts))

    def encode_tokens(self, sequences: Sequence[Sequence[int]]) -> list[Encoded]:
        """The same for tokens; an id that the model does not have is an `InputError`."""
        decoder = self.decoder
        for place, tokens in enumerate(sequences):
            if not tokens or min(tokens) < 0 or max(tokens) >= decoder.vocabulary:
                raise InputError(
                    f"text {place} must have tokens from 0 to {decoder.vocabulary - 1} of {decoder.name}, not {list(tokens)[:8]}"
                )
            if len(tokens) > decoder.window:
                raise PromptTooLong(
                    f"text {place} takes {len(tokens)} tokens; the window of {decoder.name} holds {decoder.window}: index smaller passages"
                )
        encoded: dict[int, Encoded] = {}
        for batch in self._batches([len(tokens) for tokens in sequences]):
            encoded.update(zip(batch, self._together([sequences[place] for place in batch]), strict=True))
        return [encoded[place] for place in range(len(sequences))]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of texts of like length, as many as ``batch_tokens`` hold."""
        batch: list[int] = []
        for place in sorted(range(len(lengths)), key=lengths.__getitem__):
            if batch and lengths[place] * (len(batch) + 1) > self.batch_tokens:  # this one is the longest so far
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _together(self, sequences: Sequence[Sequence[int]]) -> list[Encoded]:
        decoder, longest = self.decoder, max(map(len, sequences))
        # Padding stands behind: no token looks ahead, so what is real never sees it, and position 0 is the first token's.
        ids = torch.tensor([[*tokens, *[0] * (longest - len(tokens))] for tokens in sequences], device=decoder.device)
        mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens in sequences], device=decoder.device)
        keys, values = decoder.raw(ids, mask)
        return [
            Encoded(tuple(tokens), _of_row(keys, row, len(tokens)), _of_row(values, row, len(tokens)))
            for row, tokens in enumerate(sequences)
        ]


def _of_row(layers: Sequence[torch.Tensor], row: int, tokens: int) -> torch.Tensor:
    return torch.stack([layer[row, :, :tokens] for layer in layers]).cpu()
