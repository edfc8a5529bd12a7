from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from generators.write import most_that_fit, remarks, write
from rag.core.errors import InputError, ModelError
from rag.core.trace import TextDelta, TokensWritten, listener, span, undertone, with_tokens
from rag.core.types import Generation, Sampling
from tests.generators.conftest import ScriptedModel


def heard_while_writing(model, sampling=Sampling()):
    heard = []
    with listener(heard.append):
        return asyncio.run(write(model, "prompt", sampling)), heard


def test_without_a_listener_it_generates_in_a_batch():
    model = ScriptedModel("The lamp is lit.")
    assert asyncio.run(write(model, "prompt", Sampling())).text == "The lamp is lit."
    assert model.streamed == 0


def test_with_a_listener_it_streams():
    model = ScriptedModel("The lamp is lit.\n灯亮了。")
    generation, heard = heard_while_writing(model)
    assert len(heard) == 8
    assert all(isinstance(event, TextDelta) for event in heard)
    assert "".join(event.text for event in heard) == generation.text == "The lamp is lit.\n灯亮了。"
    assert model.streamed == 1


def test_sampling_reaches_the_model():
    model = ScriptedModel("one two three")
    sampling = Sampling(max_tokens=2)
    assert asyncio.run(write(model, "prompt", sampling)).text == "one two"
    assert heard_while_writing(model, sampling)[0].finish == "length"
    assert model.samplings == [sampling, sampling]


class Broken(ScriptedModel):
    """A stream that stops before its generation, and remembers whether it was closed."""

    closed = False

    async def astream(self, prompt, sampling=Sampling()) -> AsyncIterator[str | Generation]:
        try:
            yield "The"
        finally:
            self.closed = True


def test_a_stream_that_breaks_off():
    with pytest.raises(ModelError, match="scripted: the stream ended"):
        heard_while_writing(Broken())


def test_a_cancelled_run_closes_the_stream():
    model = Broken()

    def refuse(event):
        raise asyncio.CancelledError

    async def cancelled():
        with listener(refuse), pytest.raises(asyncio.CancelledError):
            await write(model, "prompt", Sampling())
        assert model.closed  # at once, not when the loop ends

    asyncio.run(cancelled())


def test_counters_of_the_model_land_on_the_span():
    with span("write") as here:
        asyncio.run(write(ScriptedModel("one two"), "a prompt", Sampling()))
    assert here.counts == {"calls": 1, "prompt_tokens": 2, "generated_tokens": 2}


@pytest.mark.parametrize("most", [0, 1, 4, 7, 100])
@pytest.mark.parametrize("capacity", [0, 1, 3, 4, 60, 1000])
def test_the_most_that_fit(most, capacity):
    model = ScriptedModel(window=10 + capacity)
    assert asyncio.run(most_that_fit(model, lambda n: " ".join("x" * n), most, max_tokens=10)) == min(most, capacity)


def test_it_measures_once_if_all_fits():
    model = ScriptedModel()
    assert asyncio.run(most_that_fit(model, lambda n: "x" * n, 50, 10)) == 50
    assert model.counted == 1


def test_it_measures_few_times_if_not():
    model = ScriptedModel(window=40)
    assert asyncio.run(most_that_fit(model, lambda n: " ".join("x" * n), 64, 10)) == 30
    assert model.counted <= 8


def test_nothing_fits():
    with pytest.raises(InputError, match=r"takes 5 tokens, and scripted has room for 2 .*a window of 12 less max_tokens=10"):
        asyncio.run(most_that_fit(ScriptedModel(window=12), lambda n: "a question of five words", 3, 10))


def test_the_window_is_read_only_after_a_count():
    """Reading it first would load a model, or connect to its server, on the event loop."""

    class Sleeping(ScriptedModel):
        @property
        def window(self):
            assert self.counted, "the window was read before anything was counted"
            return 100

        @window.setter
        def window(self, value):
            pass

    assert asyncio.run(most_that_fit(Sleeping(), lambda n: "x" * n, 5, 10)) == 5


def test_remarks():
    assert remarks(Generation("fine"), 5) == []
    assert remarks(Generation(" \n"), 5) == ["the model wrote no text"]
    assert remarks(Generation("cut", finish="length"), 5) == ["the answer was cut off at max_tokens=5"]


SURE = frozenset({"logprobs", "token_ids"})


def heard_with_tokens(model, sampling=Sampling()):
    heard = []
    with span("answer") as seen, listener(heard.append), with_tokens():
        asyncio.run(write(model, "prompt", sampling))
    return heard, seen


def test_who_wants_probabilities_gets_them_once_the_text_is_whole():
    model = ScriptedModel("one two", logprob=lambda token: math.log(0.25), capabilities=SURE)
    heard, seen = heard_with_tokens(model)
    assert heard == [TextDelta("one"), TextDelta(" two"), TokensWritten((("one", pytest.approx(0.25)), (" two", pytest.approx(0.25))))]
    assert model.samplings == [Sampling(logprobs=0)]
    assert "logprob" not in seen.counts  # nobody asked for the model's confidence


@pytest.mark.parametrize("capabilities", [frozenset(), frozenset({"logprobs"}), frozenset({"token_ids"})])
def test_a_model_that_may_have_none_is_not_asked_for_probabilities(capabilities):
    model = ScriptedModel("one two", capabilities=capabilities)
    heard, _ = heard_with_tokens(model)
    assert heard == [TextDelta("one"), TextDelta(" two")]
    assert model.samplings == [Sampling()]


def test_probabilities_that_were_asked_for_anyway_are_told_as_they_are():
    model = ScriptedModel("one two", capabilities=frozenset({"logprobs"}))
    heard, seen = heard_with_tokens(model, Sampling(logprobs=3))
    assert isinstance(heard[-1], TokensWritten)
    assert model.samplings == [Sampling(logprobs=3)]
    assert seen.counts["logprob_tokens"] == 2


@pytest.mark.parametrize("wanted", [False, True])
def test_nobody_asks_for_probabilities_that_nobody_hears(wanted):
    model = ScriptedModel("one two", capabilities=SURE)
    heard = []
    with with_tokens(wanted):
        asyncio.run(write(model, "prompt", Sampling()))
        with listener(heard.append), undertone():
            asyncio.run(write(model, "prompt", Sampling()))
    with listener(heard.append):
        asyncio.run(write(model, "prompt", Sampling()))
    assert model.samplings == [Sampling()] * 3
    assert not any(isinstance(event, TokensWritten) for event in heard)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_what_was_written_are_counted(stream):
    model = ScriptedModel("one two three", logprob=lambda token: -0.5)
    with span("answer") as seen, listener([].append if stream else None):
        asyncio.run(write(model, "prompt", Sampling(logprobs=0)))
    assert (seen.counts["logprob"], seen.counts["logprob_tokens"]) == (-1.5, 3)
    with span("answer") as silent:
        asyncio.run(write(model, "prompt", Sampling()))
    assert "logprob" not in silent.counts
