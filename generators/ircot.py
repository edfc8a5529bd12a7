"""Retrieval interleaved with a chain of thought: each thought is the next query.

Trivedi et al., "Interleaving Retrieval with Chain-of-Thought Reasoning for Knowledge-Intensive Multi-Step Questions" (IRCoT), ACL 2023,
section 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from generators.cited import Cited
from generators.continuing import begun
from generators.passages import numbered
from generators.prompts import render
from generators.retrieval import append, retrieve
from generators.sentences import beyond_first_sentence, first_sentence
from generators.write import most_that_fit
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import count, note
from rag.core.types import Answer, Filter, Hit, Message, Prompt, Sampling, SamplingRequest
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language

_CONCLUDED = re.compile(r"\banswer is\b|答案(?:是|为)", re.IGNORECASE)
_LABEL = re.compile(r"\A(?:[-*•]\s|(?:step )?\d{1,2}(?:[.):]\s|[、：])|reasoning:|推理：)\s*", re.IGNORECASE)
_WH = re.compile(
    r"\b(?:who(?:se|m)?|what|when|where|which|why|how)\b|为什么|什么(?:时候)?|哪(?:一年|里|儿|个|些|位)|何时|谁|怎么|多少", re.IGNORECASE
)


@component
class IRCoT:
    """Gather passages by thinking aloud, then answer from them with citations, as `Cited` does.

    The question brings ``k`` passages. Then, in turn: the model writes its next thought from all passages and thoughts so far, of which
    the first sentence (within ``step_tokens``) is kept, and that sentence brings ``k`` more. It ends when a thought says "answer is", is
    empty or repeats an earlier one, when the pool of ``pool`` passages is full, and at the latest after ``max_steps`` retrievals.
    ``strip_wh`` takes question words out of the queries. ``max_tokens`` is for the answer; ``language`` is that of the prompts.
    """

    def __init__(
        self,
        model: LanguageModel,
        k: int = 4,
        max_steps: int = 8,
        pool: int = 15,
        max_tokens: int = 256,
        step_tokens: int = 64,
        language: Language = "auto",
        strip_wh: bool = False,
    ) -> None:
        for name, value in (("k", k), ("max_steps", max_steps), ("pool", pool), ("max_tokens", max_tokens), ("step_tokens", step_tokens)):
            check_positive(value, name, "IRCoT")
        if k > pool:
            raise InputError(f"IRCoT: pool must hold at least the k={k} passages of one retrieval, not {pool}")
        check_language(language, "IRCoT")
        self.model = model
        self.k = k
        self.max_steps = max_steps
        self.pool = pool
        self.max_tokens = max_tokens
        self.step_tokens = step_tokens
        self.language = language
        self.strip_wh = strip_wh

    async def run(
        self, question: str, retriever: Retriever, filter: Filter | None = None, sampling: SamplingRequest | None = None
    ) -> Answer:
        """Answer ``question`` from what ``retriever`` finds under ``filter`` for it and for the model's thoughts.

        The thoughts are notes in the trace; the text that streams is the answer's. Without any hit for the question the model is not
        called. Raises what `Cited.run` raises.
        """
        question = check_question(question)
        passages, remarks = await self._gather(question, retriever, filter)
        answer = await Cited(self.model, self.k, self.max_tokens, self.language).read(question, passages, sampling)
        return replace(answer, notes=(*remarks, *answer.notes))

    async def _gather(self, question: str, retriever: Retriever, filter: Filter | None) -> tuple[list[Hit], list[str]]:
        """At most ``pool`` passages in the order in which they were found, and what the reader of the answer should know."""
        passages = append([], await retrieve(retriever, self._query(question), self.k, filter), self.pool)
        thoughts: list[str] = []
        while passages and len(passages) < self.pool:
            if len(thoughts) == self.max_steps - 1:
                note(f"stopped: max_steps={self.max_steps} retrievals are done")
                return passages, [f"the search for passages stopped at max_steps={self.max_steps} before the model reached an answer"]
            thought = await self._think(question, passages, thoughts)
            count(steps=1)
            note(f'thought {len(thoughts) + 1}: "{thought}"')
            if not thought or thought in thoughts or _CONCLUDED.search(thought):
                note(f"stopped: the thought {'concludes' if thought and thought not in thoughts else 'is empty or repeats an earlier one'}")
                return passages, []
            thoughts.append(thought)
            found = await retrieve(retriever, self._query(thought), self.k, filter)
            passages = append(passages, found, self.pool)
        note(f"stopped: the pool holds {len(passages)} of {self.pool} passages")
        return passages, []

    async def _think(self, question: str, passages: Sequence[Hit], thoughts: Sequence[str]) -> str:
        """The next sentence of the chain of thought, on one line and without a list's number; empty if the model writes none."""
        language = prompt_language(self.language, question)
        said = ("" if language == "zh" else " ").join(thoughts)

        def prompt(n: int) -> Prompt:
            return begun(self.model, _chat(question, passages[:n], language), said)

        kept = await most_that_fit(self.model, prompt, len(passages), self.step_tokens)
        if kept < len(passages):
            note(f"thought {len(thoughts) + 1} sees {kept} of {len(passages)} passages: more pass the window of {self.model.window} tokens")
        generation = await self.model.agenerate(prompt(kept), Sampling(max_tokens=self.step_tokens, until=beyond_first_sentence))
        return _LABEL.sub("", " ".join(first_sentence(generation.text).split()))

    def _query(self, text: str) -> str:
        """``text`` as a query; a text of question words alone stays whole."""
        return " ".join(_WH.sub(" ", text).split()) or text if self.strip_wh else text


def _chat(question: str, passages: Sequence[Hit], language: str) -> list[Message]:
    """The rule, an example as turns of its own (in the system's turn, a small model repeats its labels), the passages and the question."""
    return [
        Message("system", render("ircot/system", language)),
        Message("user", render("ircot/example", language)),
        Message("assistant", render("ircot/example_thoughts", language)),
        Message("user", render("ircot/thought", language, passages=numbered(passages), question=as_data(question))),
    ]
