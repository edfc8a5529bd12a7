"""A language model orders the hits by naming their numbers.

RankGPT: Sun et al., "Is ChatGPT Good at Search? Investigating Large Language Models as Re-Ranking Agents", EMNLP 2023,
sections 3.2 and 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from rag.core.errors import InputError, PromptTooLong
from rag.core.protocols import LanguageModel
from rag.core.registry import component
from rag.core.trace import note
from rag.core.types import Hit, Message, Sampling
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language

_REPLY_TOKENS_PER_PASSAGE = 8  # "[12] > " takes 4 to 7 tokens in the vocabularies we know
_FEWEST_WORDS = 8  # passages cut shorter than this cannot be judged

_WORDING = {
    "en": {
        "role": "You rank passages by how well they answer a search query.",
        "open": "I will give you {n} passages, each with a number in square brackets. Rank them by their relevance to the query: {query}",
        "ready": "Please give me the passages.",
        "received": "I have read passage [{i}].",
        "ask": "Query: {query}\nRank the {n} passages above by their relevance to the query, the most relevant first. Write only the"
        " numbers, in the form [2] > [1], and name every passage once. Write nothing else.",
    },
    "zh": {
        "role": "你按照段落与检索问题的相关程度给段落排序。",
        "open": "我会给你 {n} 个段落，每个段落的编号写在方括号里。请按照与问题的相关程度给它们排序。问题：{query}",
        "ready": "请给出段落。",
        "received": "已读段落 [{i}]。",
        "ask": "问题：{query}\n请按照与问题的相关程度给上面 {n} 个段落排序，最相关的排在最前面。"
        "只写编号，格式如 [2] > [1]，每个段落写一次，不要写别的内容。",
    },
}

_BRACKETED = re.compile(r"[\[［【]\s*([0-9]{1,6})\s*[\]］】]")
_BARE = re.compile(r"(?<![0-9])[0-9]{1,6}(?![0-9])")
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\s\u3400-\u4dbf\u4e00-\u9fff]+")


@component
class ListwiseRerank:
    """Let ``model`` rank up to ``window`` passages at a time, from the back of the list to its front in strides of ``step``.

    Each window carries its best ``window - step`` passages into the next, so with a perfect model the first ``window - step`` are the best
    of the whole list. ``max_words`` cuts each passage (a Chinese character counts as a word); it is cut further, with a note, where a
    prompt would not fit the model. The order of the result is the whole meaning of its scores, which are 1 / rank.
    """

    def __init__(
        self, model: LanguageModel, k: int = 5, window: int = 20, step: int = 10, max_words: int = 300, language: Language = "auto"
    ) -> None:
        check_positive(k, "k", "ListwiseRerank")
        check_positive(window, "window", "ListwiseRerank")
        check_positive(step, "step", "ListwiseRerank")
        check_positive(max_words, "max_words", "ListwiseRerank")
        check_language(language, "ListwiseRerank")
        if step >= window:
            raise InputError(
                f"ListwiseRerank: step must be smaller than window, or nothing moves forward; not step={step}, window={window}"
            )
        self.model = model
        self.k = k
        self.window = window
        self.step = step
        self.max_words = max_words
        self.language = language

    async def run(self, query: str, hits: list[Hit]) -> list[Hit]:
        """Return the first ``k`` of a permutation of ``hits``, whatever the model replies; one call per window.

        Raises `InputError` for an empty query and `PromptTooLong` if a window does not fit the model even with passages of a few words.
        """
        check_question(query)
        order = list(hits)
        end = len(order)
        while end > 1:
            start = max(0, end - self.window)
            order[start:end] = await self._rank(query, order[start:end], start)
            if start == 0:
                break
            end -= self.step
        name = f"listwise({hits[0].retriever or '?'})" if hits else ""
        return [replace(hit, score=1 / rank, rank=rank, retriever=name) for rank, hit in enumerate(order[: self.k], start=1)]

    async def _rank(self, query: str, hits: Sequence[Hit], start: int) -> list[Hit]:
        room = len(hits) * _REPLY_TOKENS_PER_PASSAGE
        prompt = await self._fitted_prompt(query, hits, room)
        reply = await self.model.agenerate(prompt, Sampling(max_tokens=room))
        named = parse_ranking(reply.text, len(hits))
        if not named:
            note(f"the reply for hits {start + 1}–{start + len(hits)} named no passage; their order is kept")
        return [hits[index] for index in complete(named, len(hits))]

    async def _fitted_prompt(self, query: str, hits: Sequence[Hit], reply: int) -> list[Message]:
        words = self.max_words
        while True:
            prompt = ranking_prompt(query, [hit.passage.text for hit in hits], words, self.language)
            taken = await self.model.acount(prompt)
            # The window comes after the count: asked first, a model might block the event loop to load or to connect.
            room = self.model.window - reply
            if taken <= room:
                if words < self.max_words:
                    note(f"passages cut to {words} words to fit the window of {self.model.window} tokens")
                return prompt
            if words <= _FEWEST_WORDS:
                raise PromptTooLong(
                    f"ListwiseRerank: {len(hits)} passages of {words} words and the query take {taken} tokens, and {self.model.name} has"
                    f" room for {max(room, 0)} in its window of {self.model.window}; lower window={self.window}, or shorten the query"
                )
            words = max(_FEWEST_WORDS, min(words * max(room, 1) // taken, words - 1))


def ranking_prompt(query: str, texts: Sequence[str], max_words: int, language: Language = "auto") -> list[Message]:
    """The chat of RankGPT: an announcement, one turn per passage that the assistant acknowledges, and the request."""
    wording = _WORDING[prompt_language(language, query)]
    asked = as_data(query.strip())
    number = str(len(texts))
    prompt = [
        Message("system", wording["role"]),
        Message("user", wording["open"].replace("{n}", number).replace("{query}", asked)),
        Message("assistant", wording["ready"]),
    ]
    for i, text in enumerate(texts, start=1):
        prompt.append(Message("user", f"[{i}] {first_words(as_data(text), max_words)}"))
        prompt.append(Message("assistant", wording["received"].replace("{i}", str(i))))
    prompt.append(Message("user", wording["ask"].replace("{n}", number).replace("{query}", asked)))
    return prompt


def first_words(text: str, count: int) -> str:
    """The first ``count`` words of ``text`` (Chinese: characters), white space as it was."""
    for number, match in enumerate(_WORD.finditer(text), start=1):
        if number == count:
            return text[: match.end()]
    return text


def parse_ranking(reply: str, n: int) -> list[int]:
    """The passages that ``reply`` names, as indices from 0 in its order: duplicates and numbers outside 1..n are left out.

    Numbers in square brackets count; only a reply without any is read by its bare numbers.
    """
    numbers = _BRACKETED.findall(reply) or _BARE.findall(reply)
    return list(dict.fromkeys(int(number) - 1 for number in numbers if 1 <= int(number) <= n))


def complete(named: Sequence[int], n: int) -> list[int]:
    """``named`` followed by the indices it lacks in their original order: always a permutation of 0..n-1."""
    known = set(named)
    return [*named, *(index for index in range(n) if index not in known)]
