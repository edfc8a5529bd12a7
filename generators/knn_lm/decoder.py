"""A decoder as kNN-LM sees it: next-token logits, and at each position the vector that stands for the context so far."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generators.models.loading import load_decoder
from rag.core.errors import InputError, ModelError

if TYPE_CHECKING:
    import torch

_FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "fc1")
"""What decoders of transformers call the feed-forward layer of a block ("fc1": its first linear layer, where it has no module: OPT)."""


@dataclass(frozen=True, slots=True)
class Source:
    """Whose vectors they are: hashes of weights and tokenizer, the module whose input they are, and their dimension."""

    weights: str
    tokenizer: str
    layer: str
    dim: int


class Decoder:
    """``model`` is a causal language model of transformers in evaluation mode, ``tokenizer`` its own; ``name`` is for errors.

    The vector of a context is the input of the last block's feed-forward layer at its last token, after the layer's norm: the best of
    six places in the paper (section 5, table 5). In a block whose attention and feed-forward run side by side (GPT-J, GPT-NeoX) it has
    not seen that block's attention. Not thread-safe. Raises `ModelError` for a model in which that layer is not found.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        config = model.config.get_text_config()
        self.window = int(getattr(config, "max_position_embeddings", 0) or tokenizer.model_max_length)
        self._layer, self._feed_forward = _last_feed_forward(model, int(config.num_hidden_layers), name)
        self._source: Source | None = None

    @staticmethod
    def load(name: str = "smollm2", dtype: str = "float32", device: str = "auto") -> Decoder:
        """``name``: "smollm2" (embedded), a folder, or a Hugging Face id. ``dtype`` and ``device`` as for `Local`.

        Raises `MissingDependency`, and `ModelError` for what cannot be loaded.
        """
        if dtype not in ("float32", "bfloat16", "float16", "auto"):
            raise InputError(f"dtype is one of float32, bfloat16, float16, auto, not {dtype!r}")
        return Decoder(*load_decoder(name, dtype, device), name)

    @property
    def source(self) -> Source:
        """The identity of its vectors."""
        if self._source is None:
            from adapters.fingerprint import fingerprint

            words = json.dumps(sorted(self.tokenizer.get_vocab().items()), ensure_ascii=False)
            tokenizer = hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()
            dim = int(self.keys([[0]])[0].shape[-1])
            self._source = Source(fingerprint(self.model), tokenizer, self._layer, dim)
        return self._source

    def ids(self, text: str) -> list[int]:
        """The tokens of ``text``, without special ones. Raises `InputError` for what is no text."""
        if not isinstance(text, str):
            raise InputError(f"a text of the corpus is a string, not {type(text).__name__}")
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]

    def keys(self, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The vectors [tokens, dim] of each sequence of ids; the output embeddings are not computed."""
        import torch

        with torch.inference_mode(), self.capturing() as captured:
            self._run(self.model.base_model, sequences)
        return [keys[: len(sequence)] for keys, sequence in zip(captured[0], sequences, strict=True)]

    def keys_and_logits(self, ids: Sequence[int], last: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors [last, dim] and logits [last, vocabulary] of the ``last`` positions of ``ids``."""
        import torch

        with torch.inference_mode(), self.capturing() as captured:
            logits = self._run(self.model, [ids], logits_to_keep=last).logits
        return captured[0][0, -last:], logits[0]

    @contextmanager
    def capturing(self) -> Iterator[list[torch.Tensor]]:
        """The vectors [rows, tokens, dim] of each forward pass within the block are appended to the list that is yielded."""
        found: list[torch.Tensor] = []

        def hear(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            found.append(inputs[0].detach())

        handle = self._feed_forward.register_forward_pre_hook(hear)
        try:
            yield found
        finally:
            handle.remove()

    def _run(self, module: Any, sequences: Sequence[Sequence[int]], **more: int) -> Any:
        import torch

        longest = max(map(len, sequences))
        # padding stands behind, where causal attention never sees it
        ids = torch.tensor([[*sequence, *[0] * (longest - len(sequence))] for sequence in sequences], device=self.model.device)
        mask = torch.tensor([[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences], device=self.model.device)
        return module(input_ids=ids, attention_mask=mask, use_cache=False, **more)


def _last_feed_forward(model: Any, layers: int, name: str) -> tuple[str, Any]:
    """Its name in ``model`` and the module."""
    from torch import nn

    if model.config.is_encoder_decoder:
        raise ModelError(f"{name} is an encoder–decoder; kNN-LM needs a decoder-only language model")
    for path, blocks in model.named_modules():
        if isinstance(blocks, nn.ModuleList) and len(blocks) == layers:
            for child in _FEED_FORWARD:
                if isinstance(found := getattr(blocks[-1], child, None), nn.Module):
                    return f"{path}.{layers - 1}.{child}", found
    raise ModelError(
        f"{name} ({type(model).__name__}): its {layers} blocks have no feed-forward layer that is known; looked for"
        f" {', '.join(_FEED_FORWARD)}"
    )
