"""Toolformer's annotation (Schick et al. 2023, section 2): a model puts calls into a text and keeps those that help it to go on.

It follows the paper and not the public re-implementations: weights sum to 1, and a call is a prefix of the whole text while it is judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from generators.models.together import together
from generators.needs import check_offers
from generators.prompts import render
from generators.toolformer.annotated import AnnotatedCall, example_pair
from generators.toolformer.calls import Call, example_call, execute, inline, opening_ids, parse_call
from generators.toolformer.loss import WEIGHTS, gain, likely_positions, weighted_loss
from generators.toolformer.prompt import description, examples
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel
from rag.core.registry import component
from rag.core.trace import count, note
from rag.core.types import Sampling
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language
from tools.tool import Tool, check_tools

_CALL_TOKENS = 48


@dataclass(frozen=True, slots=True)
class _Place:
    """A position i: x_1..x_{i-1}, the tokens x_i..x_{i+4} as text, and p_i."""

    before: str
    after: str
    probability: float


@component
class Annotate:
    """Finds calls of ``tool`` for a text: positions whose p(<API>) is above ``tau_s``, at most ``k``; up to ``m`` sampled calls at each;
    those executed whose result lowers the weighted loss by ``tau_f`` or more are kept.

    Defaults are the paper's; for the calculator and translation it takes tau_s=0.0, tau_f=0.5, k=20, m=10. ``shots`` are texts with calls
    and results for tools of your own: "At 3 a litre, 14 litres cost [Calculator(3 * 14) -> 42] 42." ``seed`` makes the samples repeatable.
    """

    def __init__(
        self,
        model: LanguageModel,
        tool: Tool,
        tau_s: float = 0.05,
        tau_f: float = 1.0,
        k: int = 5,
        m: int = 5,
        shots: Sequence[str] = (),
        language: Language = "auto",
        timeout: float = 10.0,
        seed: int = 0,
    ) -> None:
        if not 0 <= tau_s < 1:
            raise InputError(f"Annotate: tau_s is a probability from 0 to below 1, not {tau_s!r}")
        if not 0 <= tau_f < math.inf:
            raise InputError(f"Annotate: tau_f is a difference of losses of at least 0, not {tau_f!r}")
        check_positive(k, "k", "Annotate")
        check_positive(m, "m", "Annotate")
        check_language(language, "Annotate")
        check_tools([tool], "Annotate")
        check_offers(model, "Annotate", "token_ids", "to see the probability of a call")
        check_offers(model, "Annotate", "score", "to see whether a call helps")
        self.model = model
        self.tool = tool
        self.tau_s = tau_s
        self.tau_f = tau_f
        self.k = k
        self.m = m
        self.shots = shots
        self.language = language
        self.timeout = timeout
        self.seed = seed

    async def run(self, text: str) -> list[AnnotatedCall]:
        """The calls that help, by position. Each is executed once. Raises `InputError` for a blank text or a tool without examples."""
        check_question(text)
        prompt = self._prompt(text)
        kept = await together(self._kept(prompt, place) for place in await self._places(prompt, text))
        found = [call for calls in kept for call in calls]
        count(annotated=len(found))
        return found

    async def _kept(self, prompt: str, place: _Place) -> list[AnnotatedCall]:
        results = await together(self._result(call) for call in await self._sampled(prompt, place))
        judged = await together(self._judged(place, call, result) for call, result in results if result)
        return [call for call in judged if call.gain >= self.tau_f]

    def _prompt(self, text: str) -> str:
        """P(x) of the paper: the task and examples; the model writes the text anew behind it."""
        language = prompt_language(self.language, text)
        answers = self.shots or [answer for _, answer in examples(self.tool, language)]
        if not answers:
            raise InputError(
                f"Annotate: there are no examples for {self.tool.name}; give shots=['… [{example_call(self.tool)} -> result] …']"
            )
        pairs = [render("toolformer/pair", language, text=plain, called=called) for plain, called in map(example_pair, answers)]
        task = render(
            "toolformer/annotate",
            language,
            tool=self.tool.name,
            description=description(self.tool),
            call=str(example_call(self.tool)),
            examples="\n\n".join(pairs),
        )
        return f"{task}\n\n{render('toolformer/pair', language, text=as_data(text), called='')}"

    async def _places(self, prompt: str, text: str) -> list[_Place]:
        """I = {i : p_i > tau_s}, the k likeliest. The first token has nothing before it that a call could follow."""
        tokens = [token for token in (await self.model.ascore(prompt, text)).tokens if token.end > token.start][1:]
        ids = tuple(await opening_ids(self.model))
        probabilities = await together(self._probability(prompt + text[: token.start], ids) for token in tokens)
        chosen = likely_positions(probabilities, self.tau_s, self.k)
        note(f"{len(chosen)} of {len(tokens)} positions for {self.tool.name} (p > {self.tau_s:g}, at most {self.k})")
        return [
            _Place(
                text[: tokens[index].start],
                text[tokens[index].start : tokens[min(index + len(WEIGHTS), len(tokens)) - 1].end],
                probabilities[index],
            )
            for index in chosen
        ]

    async def _probability(self, prompt: str, ids: tuple[int, ...]) -> float:
        written = await self.model.agenerate(prompt, Sampling(max_tokens=1, logprob_ids=ids))
        return sum(math.exp(logprob) for _, _, logprob in written.tokens[0].top)

    async def _sampled(self, prompt: str, place: _Place) -> list[Call]:
        """Up to m different calls. One without its closing bracket is discarded."""
        opened = prompt + place.before + ("[" if place.before[-1].isspace() else " [")
        seeds = range(self.seed + len(place.before) * self.m, self.seed + (len(place.before) + 1) * self.m)
        samplings = [Sampling(max_tokens=_CALL_TOKENS, temperature=1.0, stop=("\n",), seed=seed) for seed in seeds]
        texts = [written.text for written in await together(self.model.agenerate(opened, sampling) for sampling in samplings)]
        calls = [parse_call(text.partition("]")[0].partition("->")[0]) for text in texts if "]" in text]
        return list(dict.fromkeys(call for call in calls if call is not None and call.name == self.tool.name))

    async def _result(self, call: Call) -> tuple[Call, str]:
        """The response as one text; empty if the tool fails, and an empty one is never kept."""
        result = await execute(call, {self.tool.name: self.tool}, self.timeout)
        if result.error:
            note(f"{call} is discarded: {result.error}")
        return call, inline(result.text)

    async def _judged(self, place: _Place, call: Call, result: str) -> AnnotatedCall:
        losses = await together(self._loss(place, z) for z in (f"[{call} -> {result}]", f"[{call} -> ]", ""))
        return AnnotatedCall(len(place.before), str(call), result, place.probability, gain(*losses))

    async def _loss(self, place: _Place, z: str) -> float:
        """L_i(z), with z in front of the whole text: a model that was not trained on calls would stumble over one at i."""
        lead = f"{z} " if z and not place.before[0].isspace() else z
        scored = await self.model.ascore(lead + place.before, place.after)
        return weighted_loss([token.logprob for token in scored.tokens])
