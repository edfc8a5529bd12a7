"""Learning to answer from passages that do not see each other, as they are when their caches are stitched together.

The block mask of Block-Attention (https://arxiv.org/abs/2409.15355) and TurboRAG (https://arxiv.org/abs/2410.07590), which train all
weights with it; here what the model wears trains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters.training.data import Grounded, Record
from adapters.training.losses import IGNORED, causal_loss
from adapters.training.tasks import Batch, Encoded, Example, PromptTokens, check_room, encoded_as, padding_token, rectangle
from rag.core.errors import InputError

APART = "passages apart"
"""What the card of a run says where passages did not see each other."""


@dataclass(frozen=True)
class PassagePrompt:
    """A prompt as tokens: what stands ``before`` the passages (it may be nothing), ``between`` two of them, and the ``question`` behind.

    ``chat`` tells whether the answer ends as a turn of a chat does.
    """

    before: tuple[int, ...]
    passages: tuple[tuple[int, ...], ...]
    between: tuple[int, ...]
    question: tuple[int, ...]
    chat: bool

    def fitting(self, room: int, links: int = 0) -> int:
        """How many passages, from the first on, each with so many ``links`` behind it, leave the prompt within ``room`` tokens."""
        taken, kept = len(self.before) + len(self.question), 0
        for number, passage in enumerate(self.passages, start=1):
            taken += len(passage) + links + (len(self.between) if number > 1 else 0)
            kept = number if taken <= room else kept
        return kept

    def blocks(self, kept: int, links: tuple[int, ...] = ()) -> tuple[tuple[int, ...], ...]:
        """What stands in front of the question, with the first ``kept`` passages and ``links`` behind each."""
        rows, behind = [self.before] if self.before else [], [links] if links else []
        for number, passage in enumerate(self.passages[:kept]):
            rows += [self.between, passage, *behind] if number else [passage, *behind]
        return tuple(rows)


class BlockTask:
    """A language model learns to answer from passages: only the answer and its end are scored.

    ``prompt`` makes a record's prompt. What stands before the passages, each of them, and each of what stands between is a block that sees
    itself alone, unless ``apart`` is False; question and answer see all, and so do ``links``, the tokens that stand behind each passage (of
    `adapters.contract.Links`). Positions run on from 0. Passages that do not fit are left out from the last; an answer that alone is too
    long loses its end.
    """

    least = 1

    def __init__(
        self,
        tokenizer: Any,
        max_tokens: int,
        prompt: Callable[[Grounded], PassagePrompt],
        apart: bool = True,
        links: tuple[int, ...] = (),
    ) -> None:
        check_room(max_tokens)
        self._answers = PromptTokens(tokenizer)
        self._max = max_tokens
        self._prompt = prompt
        self._apart = apart
        self._links = links
        self._pad = padding_token(tokenizer)

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Records of `Grounded`; the parts of an example are its blocks, the question and the answer.

        Raises `InputError` for a question that does not fit with one passage.
        """
        return encoded_as(records, Grounded, self._one)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """One row each, padded at the end; targets [B, T'] are of the last T' tokens, from the last of the shortest prompt on."""
        rows = [[token for part in example.parts for token in part] for example in examples]
        blocks = [self._numbered(example) for example in examples]
        labels = [[IGNORED] * (example.length - len(example.parts[-1])) + list(example.parts[-1]) for example in examples]
        first = min(example.length - len(example.parts[-1]) for example in examples) - 1
        ids = rectangle(rows, self._pad)
        places = torch.arange(ids.shape[1]).expand_as(ids)
        inputs = {"input_ids": ids, "position_ids": places, "blocks": rectangle(blocks, 0)}
        weight = sum(len(example.parts[-1]) for example in examples)
        return Batch((inputs,), rectangle(labels, IGNORED)[:, first:], weight, sum(map(len, rows)))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Over answer tokens."""
        inputs = dict(batch.inputs[0])
        mask = block_addend(inputs.pop("blocks"), next(model.parameters()).dtype)
        logits = model(**inputs, attention_mask=mask, use_cache=False, logits_to_keep=batch.targets.shape[1]).logits
        return causal_loss(logits, batch.targets)

    def _one(self, record: Grounded, cut: Counter[str]) -> Example:
        prompt = self._prompt(record)
        answer = self._answers.answer(record.answer, prompt.chat)
        least = len(prompt.before) + len(prompt.passages[0]) + len(self._links) + len(prompt.question)
        if least >= self._max:
            raise InputError(
                f"the question '{record.question[:60]}' takes {least} tokens with its first passage, and max_tokens is {self._max}: nothing"
                " is left for the answer; raise max_tokens, or give shorter passages"
            )
        if least + len(answer) > self._max:
            cut["answer"] += 1
            answer = answer[: self._max - least]
        kept = prompt.fitting(self._max - len(answer), len(self._links))
        if kept < len(prompt.passages):
            cut["passages"] += 1
        return Example((*prompt.blocks(kept, self._links), prompt.question, tuple(answer)))

    def _numbered(self, example: Example) -> list[int]:
        """The block of each token; links, question and answer are of block 0."""
        *blocks, question, answer = example.parts
        numbers = [number if self._apart and block != self._links else 0 for number, block in enumerate(blocks, start=1) for _ in block]
        return numbers + [0] * (len(question) + len(answer))


def block_addend(blocks: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores, [B, 1, T, T], where ``blocks`` [B, T] tells each token's block: 0 sees all before it, any other
    block itself alone. 0 where a token is seen, the lowest number of ``dtype`` elsewhere."""
    reads, read = blocks[:, :, None], blocks[:, None, :]
    seen = ((reads == 0) | (reads == read)).tril()
    return torch.zeros(seen.shape, dtype=dtype, device=blocks.device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
