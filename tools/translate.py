"""Translation by a language model, as a tool (the machine translation of Schick et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag.core.errors import InputError
from rag.core.protocols import LanguageModel
from rag.core.registry import component
from rag.core.types import Message, Sampling


@component
class Translate:
    """Has ``model`` translate a text of any language to the language called ``to``, greedily, in at most ``max_tokens`` tokens."""

    name = "MT"
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "examples": [{"text": "la gardienne du phare"}],
    }

    def __init__(self, model: LanguageModel, to: str = "English", max_tokens: int = 256) -> None:
        if not isinstance(to, str) or not to.strip():
            raise InputError(f"Translate: to names a language, such as 'English', not {to!r}")
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
            raise InputError(f"Translate: max_tokens must be an integer of at least 1, not {max_tokens!r}")
        self.model = model
        self.to = to
        self.max_tokens = max_tokens
        self.description = f"translates a text to {to}"

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        """The translation of ``arguments["text"]``."""
        text = arguments["text"].strip()
        if not text:
            raise InputError("the text is empty; give at least one word")
        rule = f"You translate to {self.to}. Reply with the translation of the user's text and nothing else."
        prompt = [Message("system", rule), Message("user", _unmarked(text))]
        return (await self.model.agenerate(prompt, Sampling(max_tokens=self.max_tokens))).text.strip()


def _unmarked(text: str) -> str:
    """``text`` without what a chat template takes for control."""
    return text.replace("<|", "< |").replace("|>", "| >")
