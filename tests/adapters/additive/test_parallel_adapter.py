from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from adapters import adapt
from adapters.additive.parallel_adapter.config import ParallelAdapter
from adapters.additive.parallel_adapter.layer import ParallelBottleneck
from adapters.anatomy import blocks
from rag.core.errors import InputError
from tests.adapters.tiny import NAMES, batch_for, tiny


def made(name: str, **options: Any) -> Any:
    """With random weights in W_up and the biases."""
    adapted = adapt(tiny(name, torch.float64), ParallelAdapter(bottleneck=4, **options))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapted.trained().values():
            parameter.normal_(std=0.3)
    return adapted


def seen(module: nn.Module, what: str, found: list[torch.Tensor]) -> None:
    module.register_forward_hook(lambda _, args, output: found.append(args[0] if what == "input" else output))


def run(adapted: Any, name: str) -> torch.Tensor:
    with torch.no_grad():
        return adapted.model(**batch_for(name)).logits


@pytest.mark.parametrize("name", NAMES)
def test_at_the_start_the_model_is_the_base_model_and_answers_otherwise_later(name: str) -> None:
    base = run(adapt(tiny(name, torch.float64), ParallelAdapter(bottleneck=4)), name)
    with torch.no_grad():
        assert torch.equal(tiny(name, torch.float64)(**batch_for(name)).logits, base)
    assert not torch.allclose(run(made(name), name), base)


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_what_the_feed_forward_reads(name: str) -> None:
    adapted = made(name)
    for block in blocks(adapted.base):
        ours: list[torch.Tensor] = []
        theirs: list[torch.Tensor] = []
        seen(adapted.worn.modules[block.feed_forward.name], "input", ours)
        seen(adapted.base.get_submodule(block.feed_forward.inner[0]), "input", theirs)
        run(adapted, name)
        assert torch.equal(ours[0], theirs[0])


@pytest.mark.parametrize("name", NAMES)
def test_its_input_does_not_depend_on_the_feed_forward(name: str) -> None:
    adapted = made(name)
    part = blocks(adapted.base)[0].feed_forward
    found: list[torch.Tensor] = []
    seen(adapted.worn.modules[part.name], "output", found)
    before = run(adapted, name)
    with torch.no_grad():
        for inner in (*part.inner, part.output):
            adapted.base.get_submodule(inner).weight.mul_(-2)
    after = run(adapted, name)
    assert not torch.allclose(before, after)
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_feed_forward_is_affine_in_the_scale(name: str) -> None:
    adapted = made(name)
    part = blocks(adapted.base)[0].feed_forward
    found: list[torch.Tensor] = []
    seen(adapted.base.get_submodule(part.output), "output", found)  # behind the adapter's own hook
    for scale in (0.0, 4.0, 8.0):
        adapted.worn.modules[part.name].scale = scale
        run(adapted, name)
    zero, once, twice = found
    assert not torch.allclose(once, zero)
    torch.testing.assert_close(twice - zero, 2 * (once - zero))


def test_the_formula() -> None:
    adapted = made("llama", scale=2.0)
    feed_forward = adapted.base.model.layers[0].mlp
    layer = adapted.worn.modules["model.layers.0.mlp"]
    x = torch.randn(2, 3, 32, dtype=torch.float64)
    inner = F.relu(x @ layer.down.weight.T + layer.down.bias) @ layer.up.weight.T + layer.up.bias
    worn = feed_forward(x)
    adapted.remove()
    torch.testing.assert_close(worn, feed_forward(x) + 2.0 * inner)


def test_feed_forward_in_chunks() -> None:
    adapted = made("bert")
    whole = run(adapted, "bert")
    for layer in adapted.base.bert.encoder.layer:
        layer.chunk_size_feed_forward = 1
    torch.testing.assert_close(run(adapted, "bert"), whole)


def test_the_last_layer_called_by_itself_is_the_base_models() -> None:
    adapted = made("gpt2")
    last = adapted.base.transformer.h[0].mlp.c_proj
    x = torch.randn(1, last.weight.shape[0], dtype=torch.float64)
    run(adapted, "gpt2")  # nothing is left over for the next call
    worn = last(x)
    adapted.remove()
    assert torch.equal(worn, last(x))


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_two_threads_in_one_model(name: str) -> None:
    """Both are inside of a feed-forward before either leaves it."""
    adapted = made(name)
    batches = [{"input_ids": batch_for(name)["input_ids"][i : i + 1]} for i in range(2)]

    def answer(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return adapted.model(**batch).logits  # type: ignore[no-any-return]

    expected = [answer(batch) for batch in batches]
    met = Barrier(2, timeout=30)
    for block in blocks(adapted.base):
        adapted.base.get_submodule(block.feed_forward.inner[0]).register_forward_pre_hook(lambda *_: (met.wait(), None)[1])
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(answer, batches))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_the_start() -> None:
    torch.manual_seed(0)
    layer = ParallelBottleneck(256, 256, 64, 4.0)
    assert not any(zero.any() for zero in (layer.down.bias, layer.up.weight, layer.up.bias))
    assert 0.95 / 16 < layer.down.weight.abs().max() <= 1 / 16  # uniform up to 1 / sqrt(d)


@pytest.mark.parametrize("name", NAMES)
def test_one_branch_a_block(name: str) -> None:
    m, d = 5, 32
    model = tiny(name)
    adapted = adapt(model, ParallelAdapter(bottleneck=m), head=())
    assert sum(p.numel() for p in adapted.trained().values()) == len(blocks(model)) * (2 * m * d + m + d)


@pytest.mark.parametrize("wrong", [{"bottleneck": 0}, {"bottleneck": 1.5}, {"scale": float("inf")}, {"scale": "4"}, {"scale": True}])
def test_bad_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"ParallelAdapter: {next(iter(wrong))} is"):
        ParallelAdapter(**wrong)
