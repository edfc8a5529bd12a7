"""The vocabulary of a model trained by Self-RAG: it writes its judgements as special tokens between the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from generators.models.together import together
from generators.needs import check_offers
from generators.passages import passage_data
from generators.self_rag.scores import CONTROL, GROUPS, ISREL, ISSUP, ISUSE, PASSAGE, RETRIEVE, Group, Segment, without_control
from rag.core.errors import MissingCapability
from rag.core.protocols import LanguageModel
from rag.core.types import Generation, Hit, Prompt, Sampling, Token
from retrievers.prompting import as_data

_YES, _NO = RETRIEVE.tokens


class Trained:
    """Reads the probabilities of the special tokens by their ids, at the positions where the model writes such a token.

    ``model`` must offer "token_ids", and each of the 15 tokens must be one token of its tokenizer: otherwise `MissingCapability`, at the
    first question.
    """

    description = "judged by the model's own reflection tokens"
    spare = 0

    def __init__(self, model: LanguageModel) -> None:
        check_offers(model, "SelfRAG with vocabulary='trained'", "token_ids", "to read the probabilities of its reflection tokens")
        self._model = model
        self._ids: Mapping[str, int] = {}

    def prompt(self, question: str, hit: Hit | None, answer: str) -> str:
        """The raw text of the training data. Earlier passages are left out: only the text written from them remains."""
        start = _start(question, answer)
        return f"{start}{_NO}" if hit is None else f"{start}{_YES}{PASSAGE[0]}{passage_data(hit.passage)}{PASSAGE[1]}"

    async def retrieval(self, question: str, answer: str) -> tuple[float, bool]:
        """See `Vocabulary`; read at the first position behind ``answer``."""
        ids, generation = await self._written(_start(question, answer), 1)
        first = generation.tokens[:1]
        return RETRIEVE.score(_logprobs(RETRIEVE, first, ids)), any(token.id == ids[_YES] for token in first)

    async def segment(self, question: str, hit: Hit | None, answer: str, max_tokens: int) -> Segment:
        """See `Vocabulary`. A segment ends where the model asks for the next retrieval; the answer, where the model stops by itself."""
        ids, generation = await self._written(self.prompt(question, hit, answer), max_tokens)
        asks, last = {ids[_YES], ids[PASSAGE[0]]}, {ids[token] for token in ISUSE.tokens}
        tokens = generation.tokens
        end = next((at for at, token in enumerate(tokens) if token.id in asks), len(tokens))
        end = next((at + 1 for at, token in enumerate(tokens[:end]) if token.id in last), end)
        complete = end == len(tokens) or tokens[end].id not in asks
        tokens = tokens[:end]
        text = tuple(token for token in tokens if token.id not in ids.values())
        verdict, usefulness = _first(ISSUP, tokens, ids), _first(ISUSE, tokens, ids)
        return Segment(
            without_control("".join(token.text for token in text)),
            hit,
            ISREL.score(_logprobs(ISREL, tokens[:1], ids)) if hit else 0.0,
            ISSUP.score(_logprobs(ISSUP, verdict, ids)) if hit else 0.0,
            ISUSE.score(_logprobs(ISUSE, usefulness, ids)),
            contradicted=bool(verdict) and verdict[0].id == ids[ISSUP.tokens[-1]],
            ended=complete or bool(usefulness),
            cut=complete and not usefulness and generation.finish == "length",
            tokens=text,
        )

    async def _written(self, prompt: Prompt, max_tokens: int) -> tuple[Mapping[str, int], Generation]:
        ids = self._ids = self._ids or await self._found()
        wanted = tuple(ids[token] for group in GROUPS for token in group.tokens)
        generation = await self._model.agenerate(prompt, Sampling(max_tokens=max_tokens, logprob_ids=wanted))
        return ids, generation

    async def _found(self) -> Mapping[str, int]:
        """The id of each control token. Raises `MissingCapability` that names those which are none."""
        encoded = await together(self._model.aencode(token) for token in CONTROL)
        lacking = [token for token, ids in zip(CONTROL, encoded, strict=True) if len(ids) != 1]
        if lacking:
            raise MissingCapability(
                f"SelfRAG: {self._model.name} lacks the reflection tokens {', '.join(lacking)}, so vocabulary='trained' cannot read its"
                " judgements; give a model that was trained with Self-RAG's 15 special tokens in its tokenizer, or choose"
                " vocabulary='prompted', which asks any model with log-probabilities for the same judgements in words"
            )
        return {token: ids[0] for token, ids in zip(CONTROL, encoded, strict=True)}


def _start(question: str, answer: str) -> str:
    # What the model wrote is data too: spelled piece by piece, a control token would be one when it is read again.
    return f"### Instruction:\n{as_data(question)}\n\n### Response:\n{as_data(answer)}"


def _first(group: Group, tokens: Sequence[Token], ids: Mapping[str, int]) -> Sequence[Token]:
    """The first of ``tokens`` that belongs to ``group``, alone in a list; an empty list if none does."""
    own = {ids[token] for token in group.tokens}
    return [token for token in tokens if token.id in own][:1]


def _logprobs(group: Group, at: Sequence[Token], ids: Mapping[str, int]) -> list[float]:
    """The log-probabilities of the labels of ``group`` at the one position ``at``; all absent if it is empty."""
    found = {other: logprob for token in at for other, _, logprob in token.top}
    return [found.get(ids[token], float("-inf")) for token in group.tokens]
