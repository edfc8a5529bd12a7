"""Link tokens: a text without them is the base model's, and they are read as the vectors that they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import adapt, load
from adapters.adapted import Adapted
from adapters.additive.link_tokens.config import LinkTokens
from adapters.contract import Links
from adapters.training.blocks import BlockTask, PassagePrompt
from adapters.training.data import Grounded
from adapters.training.trainer import train
from rag.core.errors import AdapterError, AdapterMismatch, InputError
from tests.adapters.tiny import batch_for, tiny
from tests.adapters.training.parts import FAST, tokenizer

ON = ("llama", "gpt2")
"""What writes text and has one table of embeddings; each has 100 tokens of its own."""
TEXT = torch.tensor([[5, 6, 7, 8, 9]])
LINKED = torch.tensor([[5, 6, 100, 101, 9]])


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits.clone()


def made(on: str, r: int, count: int = 2) -> Adapted:
    torch.manual_seed(4)
    return adapt(tiny(on, torch.float64), LinkTokens(count, r))


def scattered(adapted: Adapted) -> Adapted:
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in adapted.trained().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return adapted


@pytest.mark.parametrize("on", ON)
def test_text_without_them_is_read_as_by_the_base_model(on: str) -> None:
    base, adapted = tiny(on, torch.float64), scattered(made(on, 0))
    for ids in (TEXT, batch_for(on)["input_ids"]):
        assert torch.equal(logits(adapted.model, ids), logits(base, ids))
    assert isinstance(adapted.worn, Links)
    assert adapted.worn.links() == (100, 101)
    assert adapted.worn.leaves_text()
    with_lora = scattered(made(on, 2))
    assert isinstance(with_lora.worn, Links)
    assert not with_lora.worn.leaves_text()
    assert not torch.allclose(logits(with_lora.model, TEXT), logits(base, TEXT))


@pytest.mark.parametrize("on", ON)
def test_they_are_read_as_their_vectors(on: str) -> None:
    adapted, base = scattered(made(on, 0)), tiny(on, torch.float64)
    vectors = adapted.trained()["links"]
    table = base.get_input_embeddings().weight
    embedded = torch.stack([table[5], table[6], vectors[0], vectors[1], table[9]])[None]
    with torch.no_grad():
        expected = base(inputs_embeds=embedded).logits
        assert torch.equal(adapted.model(input_ids=LINKED).logits, expected)
        assert torch.equal(adapted.model(LINKED).logits, expected), "by position too"
        assert torch.equal(adapted.model(inputs_embeds=embedded).logits, expected)


def test_they_start_as_embeddings_of_the_model() -> None:
    adapted, table = made("llama", 0, 5), tiny("llama", torch.float64).get_input_embeddings().weight
    for vector in adapted.trained()["links"]:
        assert bool((table == vector).all(dim=1).any())


@pytest.mark.parametrize("r", [0, 2])
@pytest.mark.parametrize("on", ON)
def test_it_keeps_the_promises_of_the_contract(on: str, r: int, tmp_path: Path) -> None:
    before = tiny(on, torch.float64).state_dict()
    adapted = made(on, r)
    started = logits(adapted.model, LINKED)
    optimizer = torch.optim.AdamW(list(adapted.trained().values()), lr=1e-2)
    for _ in range(3):
        out = adapted.model(input_ids=LINKED).logits
        torch.nn.functional.cross_entropy(out[0, 3:], torch.tensor([11, 12])).backward()
        assert all(parameter.grad is not None for parameter in adapted.trained().values())
        optimizer.step()
        optimizer.zero_grad()
    after = logits(adapted.model, LINKED)
    assert not torch.allclose(after, started)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted._weights.items())
    assert adapted.report().trained == sum(parameter.numel() for parameter in adapted.trained().values())
    assert adapted.exports() == ()

    adapted.save(tmp_path / "saved")
    again = load(tiny(on, torch.float64), tmp_path / "saved")
    assert torch.equal(logits(again.model, LINKED), after)
    with pytest.raises(AdapterMismatch, match="was made for"):
        load(tiny(on, torch.float64, seed=5), tmp_path / "saved")

    base = again.remove()
    assert type(base) is type(tiny(on))
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    with pytest.raises(IndexError):
        logits(base, LINKED)


def test_it_learns_where_it_is_read() -> None:
    def prompt(record: Grounded) -> PassagePrompt:
        words = [tuple(tokenizer()(text)["input_ids"]) for text in (*record.passages, record.question)]
        return PassagePrompt((3, 95), tuple(words[:-1]), (94,), words[-1], False)

    model = tiny("llama")
    torch.manual_seed(0)
    method = LinkTokens(3)
    adapted = adapt(model, method)
    task = BlockTask(tokenizer(), 64, prompt, links=method.ids(100))
    examples = task.encode([Grounded(("w1 w2", "w3"), f"w{n}", "w5 w6") for n in range(4)]).examples
    outcome = train(adapted, task, examples, FAST, held_out=examples)
    assert min(loss for _, loss in outcome.held_out[1:]) < outcome.held_out[0][1]


@pytest.mark.parametrize("on", ["bert", "t5"])
def test_a_model_that_reads_no_passages_apart_is_refused(on: str) -> None:
    with pytest.raises(AdapterError, match="looked for a decoder"):
        adapt(tiny(on), LinkTokens())


@pytest.mark.parametrize(("options", "told"), [({"count": 0}, "count"), ({"r": -1}, "r is"), ({"r": 1.5}, "r is"), ({"r": True}, "r is")])
def test_wrong_options_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        LinkTokens(**options)
