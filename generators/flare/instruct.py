"""FLARE-instruct: Jiang et al., EMNLP 2023 (arXiv 2305.06983), section 3.1.

The model itself writes "[Search(term)]" where it needs to know more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from generators.flare.draft import Draft
from generators.flare.prompts import Task, check_task, instruct_chat
from generators.flare.search_call import STOPS, segment_of
from generators.needs import check_offers
from generators.retrieval import retrieve
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import count, note
from rag.core.types import Answer, Filter, Hit, Sampling
from retrievers.prompting import Language, check_language, check_positive, check_question, prompt_language

_BAN = -100.0


@component
class FlareInstruct:
    """Write, and search for the ``k`` best documents wherever the model asks for it; they replace those of the search before.

    The call is taken out of the text, and the answer goes on in front of what was found. The logits of "[" are raised by ``search_bias``,
    because models ask too rarely, and forbidden for the ``rest`` tokens behind a call, because they ask again at once. Behind
    ``max_searches`` calls they are forbidden for good. ``max_tokens`` counts the calls too. ``task`` is the kind of the answer,
    ``language`` that of the prompt.

    Needs a model with "logit_bias", "token_ids" and "prefix".
    """

    def __init__(
        self,
        model: LanguageModel,
        k: int = 2,
        max_tokens: int = 256,
        language: Language = "auto",
        search_bias: float = 2.0,
        rest: int = 5,
        max_searches: int = 8,
        task: Task = "answer",
    ) -> None:
        for value, name in ((k, "k"), (max_tokens, "max_tokens"), (rest, "rest"), (max_searches, "max_searches")):
            check_positive(value, name, "FlareInstruct")
        check_language(language, "FlareInstruct")
        check_task(task, "FlareInstruct")
        if isinstance(search_bias, bool) or not isinstance(search_bias, int | float) or not -100 <= search_bias <= 100:
            raise InputError(f"FlareInstruct: search_bias is a number from -100 to 100 that is added to logits, not {search_bias!r}")
        check_offers(model, "FlareInstruct", "logit_bias", "to make searches likelier, and to forbid them behind a search")
        check_offers(model, "FlareInstruct", "token_ids", "to know the tokens that begin a search")
        check_offers(model, "FlareInstruct", "prefix", "to go on with an answer behind a search")
        self.model = model
        self.k = k
        self.max_tokens = max_tokens
        self.language = language
        self.search_bias = search_bias
        self.rest = rest
        self.max_searches = max_searches
        self.task = task

    async def run(self, question: str, retriever: Retriever, filter: Filter | None = None) -> Answer:
        """Answer ``question``, searching under ``filter``. Counts "steps" (the calls of the model) and "search_calls" in the trace.

        Raises `InputError` if the question is empty or passes the window; the retriever's errors pass through.
        """
        question = check_question(question)
        chat_with = partial(instruct_chat, self.task, prompt_language(self.language, question), question)
        draft = Draft(self.model, chat_with, self.max_tokens)
        search = partial(retrieve, retriever, k=self.k, filter=filter)
        brackets = await self._brackets()

        documents = await draft.show([])
        asked: list[str] = []
        resting = False
        while not draft.ended:
            count(steps=1)
            written = await draft.ahead(documents, self._sampling(draft.room, brackets, resting, len(asked)))
            segment = segment_of(written)
            if segment.ends or not (written.text or resting):
                draft.end()
            draft.accept(segment.text, max(1, written.generated_tokens))
            if segment.query is not None:
                documents = await self._answered(segment.query, asked, draft, search) or documents
            resting = segment.query is not None
        return draft.answer()

    async def _brackets(self) -> list[int]:
        """The tokens that begin a call: "[" at the beginning of a word, and within one."""
        return [(await self.model.aencode(text))[-1] for text in ("[", " [")]

    def _sampling(self, room: int, brackets: Sequence[int], resting: bool, asked: int) -> Sampling:
        bias = _BAN if resting or asked >= self.max_searches else float(self.search_bias)
        most = min(self.rest, room) if resting and asked < self.max_searches else room
        return Sampling(max_tokens=most, stop=STOPS, logit_bias=dict.fromkeys(brackets, bias))

    async def _answered(self, query: str, asked: list[str], draft: Draft, search: Callable[[str], Awaitable[list[Hit]]]) -> list[Hit]:
        """What the prompt shows from now on; nothing new if the call cannot be followed."""
        count(search_calls=1)
        known = query.casefold() in asked
        full = len(asked) >= self.max_searches
        asked.append(query.casefold())
        if not query or known or full or draft.ended:
            reason = "is malformed" if not query else "repeats another" if known else "comes too late"
            note(f"took out a search that {reason}: {query!r}")
            return []
        if len(asked) == self.max_searches:
            draft.remark(f"stopped searching at max_searches={self.max_searches}")
        note(f"the model searches for {query!r}")
        return await draft.show(await search(query))
