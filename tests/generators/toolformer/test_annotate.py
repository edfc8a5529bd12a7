from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.toolformer.annotate import Annotate
from generators.toolformer.annotated import AnnotatedCall, merge
from rag.core.errors import InputError, MissingCapability
from rag.core.sync import run_sync
from rag.core.types import Generation, Prompt, Sampling, Token
from tests.generators.conftest import ScriptedModel, ScriptedRetriever, pieces
from tests.generators.toolformer.conftest import ALL, tokens_of
from tools.calculator import Calculator
from tools.search import CorpusSearch

TEXT = "Of 1400 people 400 passed which is 0.29 of all who came to sit the test"


def helped(z: str, before: str, token: str) -> float:
    """A model that finds 0.29 easy once it has read the result."""
    return -0.1 if token.strip() == "0.29" and "-> 0.29]" in z else -5.0 if token.strip() == "0.29" else -1.0


@dataclass
class JudgingModel(ScriptedModel):
    """``likely`` gives p(<API>) by the word that comes next, ``samples`` the calls it makes up, ``judge`` log-probabilities."""

    likely: Mapping[str, float] = field(default_factory=lambda: {"0.29": 0.6, "passed": 0.2, "which": 0.01})
    samples: tuple[str, ...] = ("Calculator(400 / 1400)]",)
    judge: Callable[[str, str, str], float] = helped
    capabilities: frozenset[str] = ALL
    text: str = TEXT
    scored: list[tuple[str, str]] = field(default_factory=list)

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        assert isinstance(prompt, str)
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        if not sampling.logprob_ids:
            assert sampling.seed is not None
            return Generation(self.samples[sampling.seed % len(self.samples)])
        written = re.split("Output:\n|输出：\n", prompt)[-1]
        following = pieces(self.text[len(written) :])[0].strip()
        p = self.likely.get(following, 0.0)
        top = tuple((token, "[", math.log(p / 2) if p else -100.0) for token in sampling.logprob_ids)
        return Generation("x", (Token("x", 0, -1.0, 0, 1, top),))

    async def ascore(self, prompt: Prompt, continuation: str) -> Generation:
        assert isinstance(prompt, str)
        self.scored.append((prompt, continuation))
        z, _, before = prompt.partition("] ") if prompt.startswith("[") else ("", "", prompt)
        tokens, at = [], 0
        for token in pieces(continuation):
            tokens.append(Token(token, 0, self.judge(z + "]" if z else "", before, token), at, at + len(token)))
            at += len(token)
        return Generation(continuation, tuple(tokens))

    async def aencode(self, text: str) -> list[int]:
        return [len(token) for token in tokens_of(text)]


def annotated(model: JudgingModel, text: str = TEXT, **options: Any) -> list[AnnotatedCall]:
    return run_sync(Annotate(model, options.pop("tool", Calculator()), **options).run(text))


def test_a_call_that_helps_is_kept_with_its_result_its_probability_and_its_gain() -> None:
    model = JudgingModel()
    found = annotated(model)
    assert [(call.call, call.result) for call in found] == [("Calculator(400 / 1400)", "0.29")]
    here = found[-1]
    assert TEXT[here.position :].startswith(" 0.29")
    assert here.probability == pytest.approx(0.6)
    assert here.gain == pytest.approx(4.9 / 3)
    assert merge(TEXT, [here]).text.startswith("Of 1400 people 400 passed which is [Calculator(400 / 1400) -> 0.29] 0.29 of")


def test_a_call_is_judged_as_a_prefix_of_the_whole_text_on_the_five_tokens_behind_it() -> None:
    model = JudgingModel(likely={"passed": 0.5})
    annotated(model, m=1)
    before, after = "Of 1400 people 400", " passed which is 0.29 of"
    call = "Calculator(400 / 1400)"
    assert model.scored[1:] == [(f"[{call} -> 0.29] {before}", after), (f"[{call} -> ] {before}", after), (before, after)]


def test_a_token_later_than_the_fifth_changes_nothing() -> None:
    other = TEXT.replace("all who came to sit the test", "all sorts")
    by_length = lambda z, before, token: -float(len(token)) - len(z) / 10  # noqa: E731
    one = annotated(JudgingModel(likely={"passed": 0.5}, judge=by_length), tau_f=0.0)
    two = annotated(JudgingModel(likely={"passed": 0.5}, judge=by_length, text=other), text=other, tau_f=0.0)
    assert one == two


def test_a_uniform_model_keeps_nothing() -> None:
    model = JudgingModel(judge=lambda z, before, token: -math.log(50257))
    assert annotated(model, tau_f=1e-9) == []
    assert [call.gain for call in annotated(model, tau_f=0.0)] == [0.0, 0.0]


def test_an_empty_response_is_never_kept() -> None:
    class Silent(Calculator):
        name = "Calculator"

        async def acall(self, arguments: Mapping[str, Any]) -> str:
            return " "

    assert annotated(JudgingModel(), tool=Silent(), tau_f=0.0) == []


@given(one=st.floats(0, 3), other=st.floats(0, 3))
@settings(max_examples=20, deadline=None)
def test_kept_calls_are_nested_in_tau_f(one: float, other: float) -> None:
    low, high = sorted((one, other))
    kept = annotated(JudgingModel(), tau_f=low, tau_s=0.0)
    assert [call for call in kept if call.gain >= high] == annotated(JudgingModel(), tau_f=high, tau_s=0.0)


@given(one=st.floats(0, 0.9), other=st.floats(0, 0.9), k=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_kept_calls_are_nested_in_tau_s(one: float, other: float, k: int) -> None:
    low, high = sorted((one, other))
    wide = annotated(JudgingModel(), tau_s=low, tau_f=0.0, k=k)
    assert set(annotated(JudgingModel(), tau_s=high, tau_f=0.0, k=k)) <= set(wide)


def test_at_most_k_positions_and_m_calls_at_each() -> None:
    samples = tuple(f"Calculator({n} + 1)]" for n in range(100))
    model = JudgingModel(likely=dict.fromkeys(TEXT.split(), 0.5), samples=samples, judge=lambda z, before, token: -1.0)
    found = annotated(model, k=3, m=4, tau_f=0.0)
    assert len({call.position for call in found}) == 3
    assert len(found) == len([s for s in model.samplings if s.temperature == 1.0]) == 12


@pytest.mark.parametrize("sample", ["Calculator(400 / 1400)", "Calculator(1 / 0)]", "Oracle(1)]", "Calculator]", "no call]"])
def test_a_sample_without_its_bracket_or_that_cannot_be_executed_is_discarded(sample: str) -> None:
    assert annotated(JudgingModel(samples=(sample,)), tau_f=0.0) == []


def test_a_sample_that_writes_its_own_result_is_executed_all_the_same() -> None:
    assert {call.result for call in annotated(JudgingModel(samples=("Calculator(400 / 1400) -> 7]",)))} == {"0.29"}


def test_the_prompt_shows_examples_with_calls_but_not_their_results() -> None:
    model = JudgingModel()
    annotated(model, shots=["At 3 a litre 14 litres cost [Calculator(3 * 14) -> 42] 42."])
    prompt = model.scored[0][0]
    assert "Input:\nAt 3 a litre 14 litres cost 42.\nOutput:\nAt 3 a litre 14 litres cost [Calculator(3 * 14)] 42." in prompt
    assert prompt.endswith(f"Input:\n{TEXT}\nOutput:\n")


def test_a_chinese_text_has_a_chinese_prompt() -> None:
    text = "1400 人中有 400 人通过了考试"
    model = JudgingModel(likely={}, text=text)
    annotated(model, text=text)
    assert "看守人" in model.scored[0][0]
    assert "输出：" in model.scored[0][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_s": 1.0}, "tau_s"),
        ({"tau_s": float("nan")}, "tau_s"),
        ({"tau_f": -1}, "tau_f"),
        ({"k": 0}, "k must"),
        ({"m": 0}, "m must"),
        ({"language": "de"}, "language"),
        ({"tool": "Calculator"}, "is no tool"),
        ({"text": "  "}, "empty"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        annotated(JudgingModel(), **options)


def test_a_tool_without_examples_says_how_to_give_some() -> None:
    tool = CorpusSearch(ScriptedRetriever([]))
    tool.name = "Other"
    with pytest.raises(InputError, match=r"no examples for Other; give shots="):
        annotated(JudgingModel(), tool=tool)


@pytest.mark.parametrize("lacking", ["score", "token_ids"])
def test_a_model_without_what_it_takes_is_refused(lacking: str) -> None:
    with pytest.raises(MissingCapability, match=f"Annotate needs a model with '{lacking}'"):
        Annotate(JudgingModel(capabilities=ALL - {lacking}), Calculator())
