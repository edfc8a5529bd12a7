"""The few examples of a task, and the batches that its loss is taken from. They are read and tokenised as for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.training.data import Answered, read
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def read_examples(file: str | Path) -> list[Answered]:
    """JSONL of {"prompt": text or messages, "answer": text}. Raises `InputError` with file and line."""
    found = read(file).records
    answered = [record for record in found if isinstance(record, Answered)]
    if len(answered) != len(found):
        raise InputError(f'{file}: LoRAHub learns from lines of {{"prompt": …, "answer": …}}; these have other fields')
    return answered


def prompt_text(example: Answered) -> str:
    """The prompt; of a chat, what was said."""
    return example.prompt if isinstance(example.prompt, str) else "\n".join(message["content"] for message in example.prompt)


def batches(model: Any, tokenizer: Any, examples: Sequence[Answered], size: int, max_tokens: int) -> list[dict[str, Tensor]]:
    """``input_ids``, ``attention_mask`` and ``labels``, each [rows, length], padded at the end; only the answer and its end are learnt.

    An encoder-decoder reads the prompt and writes the answer; another model reads both in one. Raises `InputError` for an example of more
    than ``max_tokens`` tokens.
    """
    from adapters.training.tasks import PromptTokens

    if not examples:
        raise InputError("there are no examples; the published recipe takes five of the task")
    whole = bool(getattr(model.config, "is_encoder_decoder", False))
    tokens = PromptTokens(tokenizer)
    rows = [_row(*tokens.encode(example), whole) for example in examples]
    for number, (ids, labels) in enumerate(rows, 1):
        longest = max(len(ids), len(labels))
        if longest > max_tokens:
            raise InputError(f"example {number} has {longest} tokens, and max_tokens is {max_tokens}; shorten it or raise that")
    return [_padded(rows[start : start + size], model.device) for start in range(0, len(rows), size)]


def _row(prompt: list[int], answer: list[int], encoder_decoder: bool) -> tuple[list[int], list[int]]:
    from adapters.training.losses import IGNORED

    return (prompt, answer) if encoder_decoder else (prompt + answer, [IGNORED] * len(prompt) + answer)


def _padded(rows: Sequence[tuple[list[int], list[int]]], device: Any) -> dict[str, Tensor]:
    import torch

    from adapters.training.losses import IGNORED

    ids, labels = (_rectangle([row[part] for row in rows], fill) for part, fill in ((0, 0), (1, IGNORED)))
    mask = _rectangle([[1] * len(row[0]) for row in rows], 0)
    made = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: torch.tensor(values, device=device) for name, values in made.items()}


def _rectangle(rows: Sequence[list[int]], fill: int) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [fill] * (longest - len(row)) for row in rows]
