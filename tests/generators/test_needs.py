from __future__ import annotations

import asyncio

import pytest

from generators.cited import Cited
from generators.direct import Direct
from rag.core.errors import MissingCapability
from rag.core.trace import span
from tests.generators.conftest import ScriptedModel, ScriptedRetriever


@pytest.mark.parametrize("method", [Direct, Cited])
def test_confidence_is_refused_when_it_is_built_of_a_model_without_log_probabilities(method):
    plain = ScriptedModel("Lamp.", capabilities=frozenset({"logit_bias"}))
    with pytest.raises(MissingCapability, match=rf"{method.__name__} needs a model with 'logprobs'.*offers logit_bias; VLLM and Local"):
        method(plain, confidence=True)
    assert method(plain).confidence is False


@pytest.mark.parametrize("confidence", [False, True])
def test_confidence_counts_log_probabilities(confidence):
    model = ScriptedModel("Mara keeps it.", logprob=lambda token: -0.25)
    retriever = ScriptedRetriever(["Mara keeps it."])
    for run in (Direct(model, confidence=confidence).run("Who?"), Cited(model, confidence=confidence).run("Who?", retriever)):
        with span("answer") as seen:
            asyncio.run(run)
        assert seen.counts.get("logprob_tokens", 0) == (3 if confidence else 0)
