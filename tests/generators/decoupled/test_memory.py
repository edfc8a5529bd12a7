from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.decoupled.encoder import DecoupledEncoder  # noqa: E402
from generators.decoupled.memory import logprobs, read, remember, write  # noqa: E402
from generators.decoupled.model import EncoderDecoder  # noqa: E402
from generators.models.decoding import Writing  # noqa: E402
from rag.core.errors import InputError, PromptTooLong  # noqa: E402
from rag.core.types import Sampling  # noqa: E402
from retrievers.context.encoded import Encoded  # noqa: E402
from tests.generators.decoupled import tiny  # noqa: E402
from tests.generators.decoupled.tiny import TEXTS  # noqa: E402


@pytest.fixture(scope="module")
def model() -> EncoderDecoder:
    return tiny.model()


@pytest.fixture(scope="module")
def contexts(model: EncoderDecoder) -> list[Encoded]:
    return DecoupledEncoder.over(model).encode(TEXTS)


def test_what_is_written_is_the_likeliest_token_each_time(model: EncoderDecoder, contexts: list[Encoded]) -> None:
    tokens, written = tiny.asked(model), []
    while len(written) < 8:
        token = int(read(model, remember(model, contexts), [*tokens, *written])[-1].argmax())
        if token == model.end:
            break
        written.append(token)
    found = write(model, remember(model, contexts), Writing(tokens, Sampling(8)))
    assert found.text == model.tokenizer.decode(written).rstrip("\ufffd")  # half a letter is not told
    assert (found.prompt_tokens, found.generated_tokens) == (len(tokens), min(8, len(written) + 1))
    assert written


def test_the_end_ends_it(model: EncoderDecoder) -> None:
    found = write(model, remember(model, []), Writing(tiny.asked(model), Sampling(8, logit_bias={model.end: 100.0})))
    assert (found.text, found.finish) == ("", "stop")


def test_scores_are_those_of_the_next_tokens(model: EncoderDecoder, contexts: list[Encoded]) -> None:
    found = logprobs(model, remember(model, contexts), (9, 10), (50, 51, 1))
    assert found.dtype == torch.float64
    for place, token in enumerate((50, 51, 1)):
        before = [*model.question((9, 10)), *(50, 51, 1)[:place]]
        expected = read(model, remember(model, contexts), before)[0].double().log_softmax(-1)[token]
        assert float(found[place]) == pytest.approx(float(expected), abs=1e-4)


def test_a_memory_is_scored_from_once(model: EncoderDecoder, contexts: list[Encoded]) -> None:
    memory = remember(model, contexts)
    logprobs(model, memory, (9,), (50,))
    with pytest.raises(InputError, match="read from already"):
        logprobs(model, memory, (9,), (50,))


def test_contexts_of_another_shape_are_refused(model: EncoderDecoder, contexts: list[Encoded]) -> None:
    bad = replace(contexts[1], values=contexts[1].values[:, :, 1:])
    with pytest.raises(InputError, match="context 2: keys and values"):
        remember(model, [contexts[0], bad])


def test_questions_out_of_bounds(model: EncoderDecoder) -> None:
    memory = remember(model, [])
    with pytest.raises(InputError, match="nothing for the decoder"):
        read(model, memory, [])
    with pytest.raises(PromptTooLong, match=f"takes {tiny.WINDOW + 1} tokens"):
        read(model, memory, [9] * (tiny.WINDOW + 1))
    with pytest.raises(PromptTooLong, match="leaves no room"):
        write(model, memory, Writing([9] * tiny.WINDOW, Sampling(8)))
    read(model, memory, [9] * tiny.WINDOW)
    with pytest.raises(PromptTooLong):
        read(model, memory, [9])
