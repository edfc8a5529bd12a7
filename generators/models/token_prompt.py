"""A prompt that is tokens already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rag.core.errors import InputError


class TokenPrompt:
    """``ids`` go to the server as they are, with ``params``, further fields of the request. Only `VLLM` takes one.

    ``told`` is the answer's ``kv_transfer_params``, which says what became of those of the request; a stream tells nothing (None).
    Raises `InputError` for a prompt without tokens.
    """

    def __init__(self, ids: Sequence[int], params: Mapping[str, Any] | None = None) -> None:
        if not ids:
            raise InputError("the prompt has no tokens")
        self.ids = list(ids)
        self.params = dict(params or {})
        self.told: Any = None

    def hear(self, answer: Any) -> None:
        """Keep what the answer tells."""
        self.told = answer.get("kv_transfer_params") if isinstance(answer, dict) else None
