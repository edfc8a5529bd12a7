"""What the decoder reads contexts from: the stored keys and values of its cross-attention, put together. No encoder is needed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from generators.decoupled.model import EncoderDecoder
from generators.models.checks import fitted
from generators.models.decoding import Writing
from rag.core.errors import InputError, ModelError, PromptTooLong
from rag.core.types import Generation
from retrievers.context.encoded import Encoded


@dataclass(slots=True)
class Memory:
    """``tokens`` of contexts and what the decoder has read so far, in transformers' ``cache``, which grows by what `read` is given."""

    cache: Any
    tokens: int

    @property
    def position(self) -> int:
        """Tokens of the decoder so far."""
        return int(self.cache.self_attention_cache.get_seq_length())


def remember(model: EncoderDecoder, contexts: Sequence[Encoded]) -> Memory:
    """A memory of ``contexts``: Concat(H_1 … H_k) in the paper, as every layer's keys and values. The order makes no difference.

    Raises `InputError` for keys or values of another shape.
    """
    from transformers import DynamicCache, EncoderDecoderCache

    for number, one in enumerate(contexts, start=1):
        shape = (model.layers, model.heads, len(one.tokens), model.head_dim)
        for part in (one.keys, one.values):
            if tuple(part.shape) != shape:
                raise InputError(
                    f"context {number}: keys and values of {model.name} are [layers, heads, tokens, d_kv] = {list(shape)}, not"
                    f" {list(part.shape)}; encode it with this model"
                )
    crossed = DynamicCache()
    if contexts:
        keys = torch.cat([one.keys.to(model.device, model.dtype) for one in contexts], dim=2)
        values = torch.cat([one.values.to(model.device, model.dtype) for one in contexts], dim=2)
        for layer in range(model.layers):
            crossed.update(keys[layer][None], values[layer][None], layer)
    cache = EncoderDecoderCache(DynamicCache(), crossed)  # its layers count as filled, so that the decoder projects nothing
    return Memory(cache, sum(len(one.tokens) for one in contexts))


def read(model: EncoderDecoder, memory: Memory, ids: Sequence[int], keep: int = 1) -> torch.Tensor:
    """Let the decoder read ``ids`` behind what it has read; the logits [``keep``, vocabulary] of the last ones.

    Raises `InputError` for no tokens, `PromptTooLong` past the window, `ModelError` when memory is short.
    """
    if not ids:
        raise InputError("there is nothing for the decoder to read")
    if memory.position + len(ids) > model.window:
        raise PromptTooLong(f"the question takes {memory.position + len(ids)} tokens; the decoder of {model.name} reads {model.window}")
    # the decoder asks for encodings before it looks into its cache; of these only the shape counts
    unseen = torch.zeros((), device=model.device, dtype=model.dtype).expand(1, memory.tokens, model.model.config.d_model)
    try:
        with model.lock, torch.no_grad():
            hidden = model.decode(
                torch.tensor([list(ids)], device=model.device), memory=unseen if memory.tokens else None, cache=memory.cache
            )
            return model.logits(hidden[0, -keep:])
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{model.name}: {memory.tokens} tokens of contexts do not fit into the memory of {model.device}") from error


def logprobs(model: EncoderDecoder, memory: Memory, prefix: Sequence[int], target: Sequence[int]) -> torch.Tensor:
    """log P(y_i | y_<i, x, contexts) of each token of ``target``, natural, in float64. ``memory`` must be fresh."""
    if memory.position:
        raise InputError("this memory was read from already; remember the contexts anew")
    logits = read(model, memory, [*model.question(tuple(prefix)), *target[:-1]], keep=len(target)).double()
    return logits.log_softmax(-1).gather(-1, torch.tensor([list(target)], device=logits.device).T)[:, 0]


def write(model: EncoderDecoder, memory: Memory, row: Writing) -> Generation:
    """Let the decoder read ``row``'s prompt, and continue it by its sampling. It ends early when ``row.cancelled`` is set.

    Raises `PromptTooLong` if the window leaves no room to write.
    """
    row.sampling = fitted(row.sampling, len(row.ids), model.window, model.name)
    row.begin(lambda ids: _decoded(model, ids, True), lambda token: _decoded(model, [token], False), model.device)
    tokens = row.ids
    while True:
        logits = read(model, memory, tokens)[-1].float()
        token = row.choose(logits)
        if not row.take(token, logits, frozenset({model.end})):
            return row.generation(model.name)
        tokens = [token]


def _decoded(model: EncoderDecoder, ids: Sequence[int], skip: bool) -> str:
    return str(model.tokenizer.decode(list(ids), skip_special_tokens=skip))
