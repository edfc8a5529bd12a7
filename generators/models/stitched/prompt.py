"""A prompt as blocks: what stands before the passages, the passages, and what stands behind them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from generators.models.checks import messages_json
from generators.models.stitched.decoder import Decoder
from rag.core.errors import InputError, MissingCapability
from rag.core.types import Message

PASSAGES = "\ue000passages\ue000"
"""Where the passages belong in a message; private-use characters, which no template has."""

BETWEEN = "\n\n"
"""What stands between two passages."""


def around_passages(decoder: Decoder, message: str) -> tuple[list[int], list[int]]:
    """Tokens before and behind `PASSAGES` in the user's ``message``, in the model's chat template (as text if it has none).

    The first part may be empty. Raises `InputError` without the mark.
    """
    before, behind, special = _around(decoder, message)
    return _ids(decoder, before, special), _ids(decoder, behind, special=False)


def whole_prompt(decoder: Decoder, message: str, texts: Sequence[str]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The prompt with ``texts`` in the place of `PASSAGES`, tokenised as one text, as blocks: what stands before them, then each with what
    stands between it and the one before; and the rest, behind them.

    A token that reaches over a border belongs to what stands behind it. Raises `InputError` without the mark, `MissingCapability` if the
    tokenizer does not tell where its tokens stand.
    """
    before, behind, special = _around(decoder, message)
    if not getattr(decoder.tokenizer, "is_fast", False):
        raise MissingCapability(
            f"{decoder.name}: its tokenizer does not tell where in a text a token stands; use one with a tokenizer.json"
        )
    parts = [before, *(f"{BETWEEN if number else ''}{text}" for number, text in enumerate(texts))]
    made = decoder.tokenizer("".join([*parts, behind]), add_special_tokens=special, verbose=False, return_offsets_mapping=True)
    tokens = [int(token) for token in made["input_ids"]]
    ends = list(accumulate((end for _, end in made["offset_mapping"]), max))  # a special token that was put behind the text has the end 0
    borders = [0, *(bisect_right(ends, end) for end in accumulate(map(len, parts)))]
    return [tuple(tokens[start:end]) for start, end in pairwise(borders)], tokens[borders[-1] :]


def too_long(decoder: Decoder, tokens: int, max_tokens: int) -> InputError:
    """What is said of a question whose prompt takes ``tokens`` tokens without any passage."""
    return InputError(
        f"the question is too long: its prompt takes {tokens} tokens, and {decoder.name} has room for"
        f" {max(0, decoder.window - max_tokens)} (a window of {decoder.window} less max_tokens={max_tokens}); shorten it or lower"
        " max_tokens"
    )


def _around(decoder: Decoder, message: str) -> tuple[str, str, bool]:
    """The text before and behind the passages, and whether special tokens are still to be put around it."""
    template = bool(decoder.tokenizer.chat_template)
    text = message
    if template:
        text = str(
            decoder.tokenizer.apply_chat_template(messages_json([Message("user", message)]), add_generation_prompt=True, tokenize=False)
        )
    before, mark, behind = text.partition(PASSAGES)  # a question that spells the mark too stands behind the first one
    if not mark:
        raise InputError("the prompt has no place for the passages")
    return before, behind, not template


def _ids(decoder: Decoder, text: str, special: bool) -> list[int]:
    found = decoder.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]  # may be none, unlike a whole prompt
    return [int(token) for token in found]
