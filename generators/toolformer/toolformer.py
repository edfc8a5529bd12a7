"""Toolformer's decoding (Schick et al. 2023, https://arxiv.org/abs/2302.04761, sections 2 and 4.1), for trained and prompted models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from generators.continuing import begun
from generators.models.checks import MAX_LOGPROBS
from generators.needs import check_offers
from generators.retrieval import append
from generators.toolformer.calls import execute, first_opening, inline, opening_ids, parse_call
from generators.toolformer.draft import Draft
from generators.toolformer.prompt import toolformer_prompt
from generators.write import most_that_fit
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel
from rag.core.registry import component
from rag.core.trace import count, note
from rag.core.types import Answer, Generation, Message, Prompt, Sampling
from retrievers.prompting import Language, check_language, check_positive, check_question, prompt_language
from tools.tool import Tool, Toolbox, check_tools, gather_tools

_CALL_TOKENS = 64
_ROOM = 3 * _CALL_TOKENS
"""Tokens of the window kept free beside the answer: for a call, some of its result, and the next call."""
_BANNED = -100.0
_MOST_BANNED = 16
"""Tokens that hold a bracket and are found out one by one, when no call may be made."""
_NEEDS = {
    "logprobs": "to see where a call is likely",
    "prefix": "to go on behind a call",
    "token_ids": "to know the token that opens a call",
    "logit_bias": "to forbid that token where no call may be made",
}


@component
class Toolformer:
    """Writes an answer greedily and calls ``tools`` on the way.

    A call " [Name(input) -> result]" is opened wherever " [" is among the ``k`` most likely tokens (1: where it is the most likely one; 0:
    never) and at least as probable as ``min_probability``, which the paper does not ask for, but a model that is only prompted needs; at
    most ``max_calls`` times. A call that is malformed, unknown or fails leaves no mark, and none follows it. Where no call may
    be made, no "[" is written. The reader sees the text without calls, or with them (``keep_calls``); ``timeout`` bounds each call in
    seconds. ``tools`` holds tools and sources of tools, such as a server.
    """

    def __init__(
        self,
        model: LanguageModel,
        tools: Sequence[Tool | Toolbox],
        k: int = 10,
        max_calls: int = 1,
        max_tokens: int = 256,
        language: Language = "auto",
        timeout: float = 10.0,
        keep_calls: bool = False,
        min_probability: float = 0.0,
    ) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= MAX_LOGPROBS:
            raise InputError(f"Toolformer: k must be an integer from 0 to {MAX_LOGPROBS}, not {k!r}")
        check_positive(max_calls, "max_calls", "Toolformer")
        check_positive(max_tokens, "max_tokens", "Toolformer")
        check_language(language, "Toolformer")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise InputError(f"Toolformer: timeout must be positive seconds, not {timeout!r}")
        if isinstance(min_probability, bool) or not isinstance(min_probability, (int, float)) or not 0 <= min_probability <= 1:
            raise InputError(f"Toolformer: min_probability must be from 0 to 1, not {min_probability!r}")
        if not isinstance(tools, (list, tuple)) or not tools:
            raise InputError("Toolformer: give at least one tool, as a list: tools=[Calculator()]")
        check_tools([tool for tool in tools if not isinstance(tool, Toolbox)], "Toolformer")
        for capability, reason in _NEEDS.items():
            check_offers(model, "Toolformer", capability, reason)
        self.model = model
        self.tools = tools
        self.k = k
        self.max_calls = max_calls
        self.max_tokens = max_tokens
        self.language = language
        self.timeout = timeout
        self.keep_calls = keep_calls
        self.min_probability = min_probability

    async def run(self, question: str) -> Answer:
        """Answer ``question``. Raises `InputError` if it is empty, or if the window has no room beside it for ``max_tokens`` and a call."""
        question = check_question(question)
        tools = await gather_tools(self.tools, "Toolformer")
        chat = toolformer_prompt(question, tools.values(), prompt_language(self.language, question))
        await most_that_fit(self.model, lambda _: chat, 0, self.max_tokens + _ROOM)
        draft = Draft(self.max_tokens)
        enabled = self.k > 0
        while enabled and draft.left:
            ahead = await self._ahead(chat, draft, Sampling(max_tokens=draft.left, logprobs=self.k))
            opening = first_opening(ahead.tokens, self.k, self.min_probability)
            if opening is None:
                draft.end(ahead)
                return draft.answer()
            index, rank, probability = opening
            draft.accept(ahead, index)
            count(triggered=1)
            note(f"a call opens at character {len(draft.text)}: p(' [')={probability:.3g}, rank {rank} of k={self.k}")
            enabled = await self._call(chat, draft, tools) and draft.calls < self.max_calls
        await self._without_calls(chat, draft)
        return draft.answer()

    async def _ahead(self, chat: list[Message], draft: Draft, sampling: Sampling) -> Generation:
        return await self.model.agenerate(begun(self.model, chat, draft.context), sampling)

    async def _call(self, chat: list[Message], draft: Draft, tools: Mapping[str, Tool]) -> bool:
        """Let the model write a call, execute and insert it. False, and nothing inserted, if that fails anywhere."""
        opening = "[" if not draft.context or draft.context[-1].isspace() else " ["
        sampling = Sampling(max_tokens=_CALL_TOKENS, stop=("->", "]", "\n"))
        written = await self.model.agenerate(begun(self.model, chat, draft.context + opening), sampling)
        call = parse_call(written.text)
        if call is None or written.finish == "length":
            return draft.drop(f"'[{written.text.strip()[:80]}' is no call such as [Name(input)]")
        if call in draft.made:
            return draft.drop(f"{call} was called before")
        result = await execute(call, tools, self.timeout)
        text = inline(result.text)
        if result.error or not text:
            return draft.drop(f"{call}: {result.error or 'the result is empty'}")
        kept = await self._room(lambda n: begun(self.model, chat, f"{draft.context}{opening}{call} -> {text[:n]}]"), len(text), draft.left)
        if kept == 0:
            return draft.drop(f"{call}: the window has no room for its result")
        if kept < len(text):
            draft.remark(f"the result of {call} was cut to {kept} of {len(text)} characters: more does not fit the model's window")
        draft.insert(call, f"{opening}{call} -> {text[:kept]}]", self.keep_calls)
        draft.sources = append(draft.sources, result.hits, len(draft.sources) + len(result.hits))
        return True

    async def _room(self, prompt_with: Callable[[int], Prompt], most: int, left: int) -> int:
        """How many characters of a result the window holds beside what is still to be written."""
        try:
            return await most_that_fit(self.model, prompt_with, most, left + _CALL_TOKENS)
        except InputError:
            return 0

    async def _without_calls(self, chat: list[Message], draft: Draft) -> None:
        """Write on with p(<API>) = 0. Tokens that hold a bracket beside other characters are banned as they turn up."""
        banned = dict.fromkeys(await opening_ids(self.model), _BANNED)
        for _ in range(_MOST_BANNED):
            if not draft.left:
                return
            ahead = await self._ahead(chat, draft, Sampling(max_tokens=draft.left, logprobs=1, logit_bias=banned))
            if draft.calls == self.max_calls and first_opening(ahead.tokens, 1):
                draft.remark(f"the model would have called again; max_calls={self.max_calls} is reached")
            bracket = next((index for index, token in enumerate(ahead.tokens) if "[" in token.text), None)
            if bracket is None:
                draft.end(ahead)
                return
            draft.accept(ahead, bracket)
            banned[ahead.tokens[bracket].id] = _BANNED
        draft.remark(f"the model kept writing brackets, which may open no call; the answer ends after {_MOST_BANNED} attempts")
