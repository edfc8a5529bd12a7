"""A tokenizer of the training data: byte-level BPE (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909), so that no text is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rag.core.errors import InputError, MissingDependency

PAD, END, SEPARATOR = "<pad>", "</s>", "<sep>"
"""Ids 0, 1 and 2. The decoder begins with the first, as T5 does, ends with the second, and reads the third behind a question."""
_BYTES = 256


def train_tokenizer(texts: Iterable[str], vocabulary: int = 4096, longest: int = 512) -> Any:
    """A tokenizer of transformers with at most ``vocabulary`` tokens, learnt from ``texts``; ``longest`` is the model's bound on tokens.

    Raises `InputError` if the vocabulary has no room for all bytes, `MissingDependency`.
    """
    if vocabulary < _BYTES + 3 or longest < 2:
        raise InputError(f"a vocabulary has {_BYTES + 3} tokens or more, and a text 2 or more, not {vocabulary} and {longest}")
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise MissingDependency(f"a tokenizer needs transformers ({error}): pip install 'graft-rag[cpu]'") from error
    base: Any = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    learning: Any = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    base.train_from_iterator(texts, learning)
    names: dict[str, Any] = {"pad_token": PAD, "eos_token": END, "sep_token": SEPARATOR, "model_max_length": longest}
    return PreTrainedTokenizerFast(tokenizer_object=base, **names)  # type: ignore[no-untyped-call]
