"""The model asks itself follow-up questions; retrieval answers them.

Press et al., "Measuring and Narrowing the Compositionality Gap in Language Models" (Self-Ask), Findings of EMNLP 2023, arXiv 2210.03350,
section 3. There a search engine answers the follow-up questions; here the model reads the answer from the passages found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from generators.continuing import begun
from generators.passages import numbered
from generators.prompts import render
from generators.refusing import declines
from generators.retrieval import append, retrieve
from generators.write import most_that_fit, remarks
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import TextDelta, count, emit, note
from rag.core.types import Answer, Filter, Hit, Message, Sampling
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, language_of, prompt_language

_ANSWER_TOKENS = 32  # an intermediate answer is a few words
_MARKER = re.compile(r"(?P<ask>\bfollow[- ]?up\s*[:：]|追问\s*[:：])|(?:\bfinal answer is|最终答案是)\s*[:：]?", re.IGNORECASE)
_YES_OR_NO = re.compile(r"\A\s*(?:yes|no|不需要|需要|是|否)\s*(?:[.。]|\n|\Z)\s*", re.IGNORECASE)


@component
class SelfAsk:
    """Answer by follow-up questions, at most ``max_steps``, each answered from its own ``k`` passages.

    The model writes up to "Intermediate answer:"; a short reader answers the follow-up question; the model goes on from there until it
    writes "So the final answer is:". That ending is written for it where ``max_steps`` is reached, a question is asked again or nothing is
    written. ``max_tokens`` is what it may write at a time; ``language`` is that of the prompts.
    """

    def __init__(self, model: LanguageModel, k: int = 4, max_steps: int = 5, max_tokens: int = 64, language: Language = "auto") -> None:
        for name, value in (("k", k), ("max_steps", max_steps), ("max_tokens", max_tokens)):
            check_positive(value, name, "SelfAsk")
        check_language(language, "SelfAsk")
        self.model = model
        self.k = k
        self.max_steps = max_steps
        self.max_tokens = max_tokens
        self.language = language

    async def run(self, question: str, retriever: Retriever, filter: Filter | None = None) -> Answer:
        """The final answer to ``question``. Its notes hold the follow-up questions with their answers, its sources what these come from.

        A model that writes neither a follow-up question nor a final answer has answered with what it wrote, and a note says so. Raises
        `InputError` if the question is empty or does not fit the model's window, and what the retriever raises.
        """
        question = check_question(question)
        language = prompt_language(self.language, question)
        chat = [
            Message("system", render("self_ask/system", language)),
            Message("user", render("self_ask/question", language, question=as_data(question))),
        ]
        await most_that_fit(self.model, lambda _: chat, 0, self.max_tokens)
        said = render("self_ask/opening", language)
        asked: dict[str, str] = {}
        sources: list[Hit] = []
        for _ in range(self.max_steps):
            text, cut = await self._write(chat, said, language)
            kind, content, end = _next_step(text)
            if kind == "end" and content:
                return _answer(content, asked, sources, *cut)
            if kind == "other" and content:
                return _answer(content, asked, sources, "the model wrote neither a follow-up question nor a final answer", *cut)
            if not content or content in asked:
                why = f'the model asked "{content}" again' if content else "the model wrote no follow-up question"
                break
            hits = await retrieve(retriever, content, self.k, filter)
            sources = append(sources, hits, len(sources) + len(hits))
            glue = "\n" if asked and not text[:1].isspace() else ""
            asked[content] = await self._read(content, hits, language)
            note(f'follow-up {len(asked)}: "{content}" -> "{asked[content]}"')
            said += f"{glue}{text[:end]}\n{render('self_ask/intermediate', language)} {asked[content]}"
        else:
            why = f"max_steps={self.max_steps} follow-up questions were asked"
        text, cut = await self._write(chat, f"{said}\n{render('self_ask/final', language)}", language)
        return _answer(text.strip().partition("\n")[0], asked, sources, f"the final answer was asked for: {why}", *cut)

    async def _write(self, chat: Sequence[Message], said: str, language: str) -> tuple[str, list[str]]:
        """What the model writes after ``said``, up to an intermediate answer or a question of its own invention, and whether it was cut."""
        asks_anew = "\n" + render("self_ask/question", language, question="").strip()
        stop = (render("self_ask/intermediate", language), asks_anew)
        generation = await self.model.agenerate(begun(self.model, chat, said), Sampling(max_tokens=self.max_tokens, stop=stop))
        count(steps=1)
        return generation.text, remarks(generation, self.max_tokens)

    async def _read(self, follow_up: str, hits: Sequence[Hit], language: str) -> str:
        """A short answer to ``follow_up`` from ``hits``, on one line; the sentence for not knowing if there are none."""
        unknown = render("unknown", language)

        def prompt(n: int) -> list[Message]:
            shown = render("self_ask/reader", language, passages=numbered(hits[:n]), question=as_data(follow_up))
            return [Message("system", render("self_ask/reader_system", language, unknown=unknown)), Message("user", shown)]

        kept = await most_that_fit(self.model, prompt, len(hits), _ANSWER_TOKENS)
        if kept < len(hits):
            note(f'{kept} of {len(hits)} passages for "{follow_up}" fit the window of {self.model.window} tokens')
        if kept == 0:
            return unknown
        generation = await self.model.agenerate(prompt(kept), Sampling(max_tokens=_ANSWER_TOKENS))
        return as_data(generation.text).strip().partition("\n")[0] or unknown


def _next_step(text: str) -> tuple[Literal["ask", "end", "other"], str, int]:
    """What ``text`` turns to first, the rest of that line, and where it ends in ``text``."""
    marker = _MARKER.search(text)
    if marker is None:
        return "other", _YES_OR_NO.sub("", text).strip(), len(text)
    start = len(text) - len(text[marker.end() :].lstrip())
    line = text[start:].partition("\n")[0].rstrip()
    return ("ask" if marker["ask"] else "end"), line, start + len(line)


def _answer(text: str, asked: Mapping[str, str], sources: Sequence[Hit], *cautions: str) -> Answer:
    """The answer with how it came about; the text goes out to whoever listens."""
    emit(TextDelta(text))
    steps = [f'follow-up "{question}": {answer}' for question, answer in asked.items()]
    found = () if sources else ("nothing was retrieved for this answer",)
    for remark in (*cautions, *found):
        note(remark)
    return Answer(text, sources=tuple(sources), refused=declines(text, language_of(text)), notes=(*steps, *cautions, *found))
