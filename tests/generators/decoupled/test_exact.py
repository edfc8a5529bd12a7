"""What is exact: stored is live to the last bit; order, padding and neighbours make no difference; only the decoder reads a store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.decoupled.batches import Example, batch  # noqa: E402
from generators.decoupled.encoder import DecoupledEncoder  # noqa: E402
from generators.decoupled.memory import logprobs, read, remember  # noqa: E402
from generators.decoupled.model import EncoderDecoder  # noqa: E402
from rag.core.errors import CorpusMismatch  # noqa: E402
from retrievers.context.build import build  # noqa: E402
from retrievers.context.numbers import number_format, size  # noqa: E402
from retrievers.context.store import ContextStore  # noqa: E402
from tests.generators.decoupled import tiny  # noqa: E402
from tests.generators.decoupled.tiny import QUESTION, TEXTS  # noqa: E402
from tests.generators.models.stitched.conftest import Double  # noqa: E402

NAMED = [(f"p{number}", text) for number, text in enumerate(TEXTS)]
IDS = [id for id, _ in NAMED]


@pytest.fixture
def model() -> EncoderDecoder:
    return tiny.model()


@pytest.fixture
def double(model: EncoderDecoder) -> Iterator[EncoderDecoder]:
    """The model, computed in float64 throughout."""
    model.model.double()
    with Double():
        yield model


def test_stored_is_live_bit_for_bit(model: EncoderDecoder, tmp_path: Path) -> None:
    encoder = DecoupledEncoder.over(model)
    build(tmp_path / "store", NAMED, encoder, "float32", batch=3)
    stored = ContextStore(tmp_path / "store", encoder.identity).get(IDS, TEXTS)
    live = [encoder.encode([text])[0] for text in TEXTS]
    for one, other in zip(stored, live, strict=True):
        assert one.tokens == other.tokens
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
    assert torch.equal(tiny.answered(model, stored), tiny.answered(model, live))


def test_half_of_the_numbers_would_not_be(model: EncoderDecoder, tmp_path: Path) -> None:
    """The test above can fail."""
    encoder = DecoupledEncoder.over(model)
    build(tmp_path / "store", NAMED, encoder, "float16")
    stored = ContextStore(tmp_path / "store", encoder.identity).get(IDS, TEXTS)
    assert not torch.equal(tiny.answered(model, stored), tiny.answered(model, encoder.encode(TEXTS)))


def test_the_order_of_contexts_makes_no_difference(double: EncoderDecoder) -> None:
    contexts = DecoupledEncoder.over(double).encode(TEXTS)
    expected = tiny.answered(double, contexts)
    for order in itertools.permutations(contexts):
        assert float((tiny.answered(double, list(order)) - expected).abs().max()) <= 1e-12
    assert float((tiny.answered(double, contexts[:3]) - expected).abs().max()) > 1e-3


def test_keys_projected_ahead_are_what_the_model_makes_of_joined_encodings(double: EncoderDecoder) -> None:
    """Against transformers' own forward pass over Concat(Enc(c_1) … Enc(c_k))."""
    texts = DecoupledEncoder.over(double).tokenised(TEXTS)
    with torch.no_grad():
        joined = torch.cat([double.encodings(torch.tensor([tokens])) for tokens in texts], dim=1)
        whole = double.model(encoder_outputs=(joined,), decoder_input_ids=torch.tensor([tiny.asked(double)])).logits[0]
    found = tiny.answered(double, DecoupledEncoder.over(double).encode(TEXTS), keep=len(whole))
    assert float((found - whole).abs().max()) <= 1e-12


def test_contexts_see_neither_one_another_nor_the_question(model: EncoderDecoder) -> None:
    first, second, third = ((9, 8, 7, 6, 5), (10, 11, 12), (20, 21, 22))
    heard: list[torch.Tensor] = []
    inner = model.encodings
    model.encodings = lambda ids, mask=None: (heard.append(inner(ids, mask)), heard[-1])[1]  # type: ignore[method-assign]
    for contexts, prefix in (((first, second), (30, 31)), ((first, third), (30, 31)), ((first, second), (40, 41, 42))):
        rows = batch([Example(contexts, prefix, (50, 51))], model.start, model.separator, model.device)
        with torch.no_grad():
            model.target_logits(rows)
    one, another_context, another_question = heard
    assert torch.equal(one[0], another_context[0])
    assert not torch.equal(one[1], another_context[1])
    assert torch.equal(one, another_question)


def test_padding_changes_nothing(double: EncoderDecoder) -> None:
    """Rows of unlike length, with one to three contexts of unlike length, against each by itself from what is stored."""
    texts = DecoupledEncoder.over(double).tokenised(TEXTS)
    rows = [
        Example((texts[0],), (9,), (50, 51, 52, 53)),
        Example((texts[2], texts[3], texts[1]), (9, 10, 11, 12), (54,)),
        Example((texts[3], texts[0]), (13, 14), (55, 56)),
    ]
    with torch.no_grad():
        logits = double.target_logits(batch(rows, double.start, double.separator, double.device))
    together = logits.log_softmax(-1).gather(-1, torch.tensor([[token] for row in rows for token in row.target]))[:, 0]
    alone = [logprobs(double, remember(double, [double.encode(one) for one in row.contexts]), row.prefix, row.target) for row in rows]
    assert float((together - torch.cat(alone)).abs().max()) <= 1e-12


def test_reading_token_by_token_is_reading_at_once(double: EncoderDecoder) -> None:
    contexts = DecoupledEncoder.over(double).encode(TEXTS[:2])
    tokens = tiny.asked(double)
    whole = read(double, remember(double, contexts), tokens, keep=len(tokens))
    memory = remember(double, contexts)
    steps = torch.cat([read(double, memory, [token]) for token in tokens])
    assert float((steps - whole).abs().max()) <= 1e-12
    assert memory.position == len(tokens)
    assert memory.cache.cross_attention_cache.get_seq_length() == memory.tokens  # read, not added to


def test_a_store_is_read_without_an_encoder(model: EncoderDecoder) -> None:
    contexts = DecoupledEncoder.over(model).encode(TEXTS)
    expected = tiny.answered(model, contexts)
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if name.startswith("encoder.") or (".EncDecAttention." in name and name.endswith((".k.weight", ".v.weight"))):
                parameter.fill_(float("nan"))
    assert torch.equal(tiny.answered(model, contexts), expected)


def test_without_contexts_the_decoder_is_alone(double: EncoderDecoder) -> None:
    found = tiny.answered(double, [])
    with torch.no_grad():
        logits = double.logits(double.decode(torch.tensor([tiny.asked(double)])))[0, -3:]
    assert float((found - logits).abs().max()) <= 1e-12
    assert float((found - tiny.answered(double, DecoupledEncoder.over(double).encode(TEXTS[:1]))).abs().max()) > 1e-3


@pytest.mark.parametrize(("name", "bytes"), [("float32", 4), ("float16", 2)])
def test_bytes_equal_the_formula(model: EncoderDecoder, name: str, bytes: int) -> None:
    (one,) = DecoupledEncoder.over(model).encode(TEXTS[2:3])
    tokens = len(one.tokens)
    assert one.keys.shape == one.values.shape == (tiny.LAYERS, tiny.HEADS, tokens, tiny.DIM)
    packed, _ = number_format(name).pack(one)
    assert size(packed) == 2 * tiny.LAYERS * tiny.HEADS * tiny.DIM * tokens * bytes + 4 * tokens  # and the tokens' ids
    assert model.identity.bytes_per_token(bytes) == 2 * tiny.LAYERS * tiny.HEADS * tiny.DIM * bytes


def test_a_store_of_another_model_is_refused(model: EncoderDecoder, tmp_path: Path) -> None:
    encoder = DecoupledEncoder.over(model)
    build(tmp_path / "store", NAMED[:2], encoder, "float32")
    identity = encoder.identity
    assert (identity.rotary, identity.adapter) == ("none", None)
    with pytest.raises(CorpusMismatch, match="rotary 'none', not 'half,8,"):
        ContextStore(tmp_path / "store", replace(identity, rotary="half,8,abc"))
    weight = model.model.encoder.block[0].layer[0].SelfAttention.q.weight
    with torch.no_grad():
        weight[0, 0] = torch.nextafter(weight[0, 0], weight.new_tensor(9.0))  # the last bit of one number
    with pytest.raises(CorpusMismatch, match="another model"):
        ContextStore(tmp_path / "store", model.identity)
    with pytest.raises(CorpusMismatch, match="another model"):
        build(tmp_path / "store", NAMED, encoder)


def test_the_identity_knows_what_weights_do_not_tell(model: EncoderDecoder) -> None:
    before = model.identity
    model.model.config.relative_attention_max_distance += 1
    assert model.identity != before
    model.model.config.relative_attention_max_distance -= 1
    assert model.identity == before
    assert tiny.model().identity == before
    assert tiny.model(seed=4).identity.weights != before.weights
    assert replace(before, weights="") == replace(tiny.model(seed=4).identity, weights="")


def test_the_question_is_the_decoders(model: EncoderDecoder) -> None:
    assert tiny.asked(model) == [0, *model.ids(QUESTION), 2]
