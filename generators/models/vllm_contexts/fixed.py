"""What stands in every prompt around its passages: encoded and stored like them, so that a server finds all blocks of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.prompt import BETWEEN, PASSAGES, around_passages
from generators.models.vllm_contexts.shelves import FIXED
from generators.prompts import render
from rag.core.errors import CorpusDamaged, CorpusMismatch
from retrievers.context.build import Built, build
from retrievers.context.encoded import Encoded, ModelIdentity
from retrievers.corpus import durable

LANGUAGES = ("en", "zh")


def fixed_blocks(encoder: LocalEncoder) -> dict[str, tuple[int, ...]]:
    """The tokens of each by its name: the beginning of the prompt ``cited`` in each language, and what stands between passages."""
    found = {"between": encoder.tokenised([BETWEEN])[0]}
    for language in LANGUAGES:
        before, _ = around_passages(encoder.decoder, render("cited", language, passages=PASSAGES, question="?"))
        if before:
            found[f"before.{language}"] = tuple(before)
    return found


def build_fixed(store: Path, encoder: LocalEncoder, numbers: str) -> Built:
    """Put them beside the passages of ``store``, in a store of their own: no passage can be taken for one. Raises what `build` does."""
    blocks = {tokens: name for name, tokens in fixed_blocks(encoder).items()}  # languages may begin alike
    contexts = [(name, " ".join(map(str, tokens))) for tokens, name in blocks.items()]
    try:
        return build(store / FIXED, contexts, _Spelt(encoder), numbers, prune=True, repair=True)
    except (CorpusDamaged, CorpusMismatch):  # its manifest is damaged or another format's; no more is lost than a second
        durable.remove(store / FIXED)
        return build(store / FIXED, contexts, _Spelt(encoder), numbers)


class _Spelt:
    """Encodes texts that are token ids in decimal: a block holds special tokens, which no text shall spell."""

    def __init__(self, encoder: LocalEncoder) -> None:
        self._encoder = encoder

    @property
    def identity(self) -> ModelIdentity:
        return self._encoder.identity

    def tokenised(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(map(int, text.split())) for text in texts]

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        return self._encoder.encode_tokens(self.tokenised(texts))
