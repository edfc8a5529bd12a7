"""A prompt as blocks: what stands before the passages, and what stands behind them."""

from __future__ import annotations

from generators.models.checks import messages_json
from generators.models.stitched.decoder import Decoder
from rag.core.errors import InputError
from rag.core.types import Message

PASSAGES = "\ue000passages\ue000"
"""Where the passages belong in a message; private-use characters, which no template has."""


def around_passages(decoder: Decoder, message: str) -> tuple[list[int], list[int]]:
    """Tokens before and behind `PASSAGES` in the user's ``message``, in the model's chat template (as text if it has none).

    The first part may be empty. Raises `InputError` without the mark.
    """
    template = bool(decoder.tokenizer.chat_template)
    text = message
    if template:
        text = str(
            decoder.tokenizer.apply_chat_template(messages_json([Message("user", message)]), add_generation_prompt=True, tokenize=False)
        )
    before, mark, behind = text.partition(PASSAGES)  # a question that spells the mark too stands behind the first one
    if not mark:
        raise InputError("the prompt has no place for the passages")
    return _ids(decoder, before, special=not template), _ids(decoder, behind, special=False)


def _ids(decoder: Decoder, text: str, special: bool) -> list[int]:
    found = decoder.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]  # may be none, unlike a whole prompt
    return [int(token) for token in found]
