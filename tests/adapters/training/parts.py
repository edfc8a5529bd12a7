"""A tokenizer of whole words for the tiny models, records, and a run of a few steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from adapters import adapt
from adapters.adapted import Adapted
from adapters.methods import build
from adapters.training.data import Answered, Labelled, Related
from adapters.training.options import Options
from adapters.training.tasks import CausalTask, Example
from tests.adapters.tiny import tiny

PAD, UNKNOWN, END, BEGIN, TURN = 0, 1, 2, 3, 4
SPECIAL = {"<pad>": PAD, "<unk>": UNKNOWN, "<end>": END, "<begin>": BEGIN, "<turn>": TURN}
WORDS = [f"w{number}" for number in range(90)]
TEMPLATE = (
    "{% for m in messages %}<begin> {{ m['role'] }} {{ m['content'] }} <turn> {% endfor %}"
    "{% if add_generation_prompt %}<begin> assistant {% endif %}"
)


def tokenizer(template: str | None = TEMPLATE, end: bool = True) -> Any:
    """A word is a token; "w0" to "w89" are known."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    names = {**SPECIAL, **{word: 5 + number for number, word in enumerate(WORDS)}, "user": 95, "assistant": 96, "system": 97}
    inner = Tokenizer(WordLevel(names, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>" if end else None,
        additional_special_tokens=["<begin>", "<turn>"],
    )
    made.chat_template = template
    return made


def answered(count: int = 12, length: int = 3) -> list[Answered]:
    """Each answer repeats the words of its prompt; the lengths differ."""
    rows = []
    for number in range(count):
        words = [WORDS[(number * 7 + at * 3) % 90] for at in range(length + number % 4)]
        rows.append(Answered(" ".join(words), " ".join(words[:2])))
    return rows


def labelled(count: int = 12) -> list[Labelled]:
    return [Labelled(f"{WORDS[number]} {WORDS[number + 1]} w50", None, "abc"[number % 3]) for number in range(count)]


def related(count: int = 6) -> list[Related]:
    return [Related(WORDS[n], f"{WORDS[n]} {WORDS[n + 1]}", (f"{WORDS[n + 30]} w60 w61",)) for n in range(count)]


def lora(on: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0, method: str = "LoRA", **options: Any) -> Adapted:
    """The tiny model ``on``, always the same, with ``method``, whose start is drawn with ``seed``."""
    model = tiny(on, dtype)
    torch.manual_seed(seed)
    return adapt(model, build(method, options or ({"r": 2, "dropout": 0.1} if method == "LoRA" else {})))


def examples(count: int = 12) -> list[Example]:
    return CausalTask(tokenizer(), 64).encode(answered(count)).examples


def weights(adapted: Adapted) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in adapted.trained().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


FAST = Options(lr=1e-2, steps=6, batch=3, save_every=1)
