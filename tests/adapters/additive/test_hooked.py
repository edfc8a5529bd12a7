"""What the methods with hooks share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from adapters import adapt
from adapters.additive.aprompt.config import APrompt
from adapters.additive.parallel_adapter.config import ParallelAdapter
from adapters.additive.serial_adapter.config import SerialAdapter
from rag.core.errors import AdapterError
from tests.adapters.tiny import NAMES, batch_for, tiny

METHODS = (SerialAdapter(bottleneck=4), ParallelAdapter(bottleneck=4), APrompt(3, 2, 1))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def moved(adapted: Any) -> None:
    """Values that show an effect."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in adapted.trained().values():
            parameter.add_(0.2 * torch.randn_like(parameter))


@pytest.mark.parametrize("chosen", METHODS, ids=lambda chosen: type(chosen).__name__)
@pytest.mark.parametrize("name", NAMES)
def test_the_base_model_keeps_its_names_and_loses_the_hooks(chosen: Any, name: str) -> None:
    base = tiny(name)
    names, before = list(base.state_dict()), hooks(base)
    adapted = adapt(base, chosen)
    assert list(base.state_dict()) == names
    assert [key for key, _ in base.named_parameters()] == [key for key, _ in tiny(name).named_parameters()]
    assert hooks(base) > before
    adapted.remove()
    assert hooks(base) == before
    adapted.remove()  # twice does no harm
    assert hooks(base) == before


@pytest.mark.parametrize("chosen", METHODS, ids=lambda chosen: type(chosen).__name__)
@pytest.mark.parametrize("name", NAMES)
def test_in_half_precision_what_trains_is_in_float32(chosen: Any, name: str) -> None:
    adapted = adapt(tiny(name, torch.bfloat16), chosen)
    moved(adapted)
    output = adapted.model(**batch_for(name))
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16
    assert torch.isfinite(output.logits).all()
    ours = {key: parameter for key, parameter in adapted.trained().items() if not key.startswith(("base.", "head."))}
    assert {parameter.dtype for parameter in ours.values()} == {torch.float32}
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in ours.values())


@pytest.mark.parametrize("chosen", METHODS, ids=lambda chosen: type(chosen).__name__)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_gradient_checkpointing_changes_nothing(chosen: Any, name: str) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        adapted = adapt(tiny(name, torch.float64), chosen)
        moved(adapted)
        for module in adapted.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        if checkpointing:
            adapted.model.gradient_checkpointing_enable({"use_reentrant": False})
        adapted.model.train()
        adapted.model(**batch_for(name)).loss.backward()
        found.append({key: parameter.grad for key, parameter in adapted.trained().items()})
    plain, again = found
    assert set(plain) == set(again)
    for key, grad in plain.items():
        torch.testing.assert_close(again[key], grad, msg=key)


@pytest.mark.parametrize("chosen", METHODS, ids=lambda chosen: type(chosen).__name__)
def test_the_config_names_the_method_and_its_options(chosen: Any) -> None:
    config = dict(adapt(tiny("bert"), chosen).worn.config())
    assert config.pop("method") == type(chosen).__name__
    assert config.pop("base_model_name_or_path") == ""  # a model that was never saved has no name
    assert type(chosen)(**config) == chosen


@pytest.mark.parametrize("chosen", METHODS, ids=lambda chosen: type(chosen).__name__)
def test_a_model_without_blocks_is_refused(chosen: Any) -> None:
    with pytest.raises(AdapterError, match="looked for"):
        adapt(nn.Sequential(nn.Linear(4, 4)), chosen)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("chosen", METHODS, ids=lambda chosen: type(chosen).__name__)
def test_with_a_cache_it_writes_what_it_writes_without(chosen: Any, name: str) -> None:
    adapted = adapt(tiny(name, torch.float64), chosen)
    moved(adapted)
    ids = batch_for(name)["input_ids"]
    mask = torch.ones_like(ids)
    ids[0, :2], mask[0, :2] = 0, 0  # padded on the left, as generation wants it
    asked = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    asked |= {"output_scores": True, "return_dict_in_generate": True}
    cached = adapted.model.generate(ids, attention_mask=mask, use_cache=True, **asked)
    plain = adapted.model.generate(ids, attention_mask=mask, use_cache=False, **asked)
    assert torch.equal(cached.sequences, plain.sequences)
    for one, other in zip(cached.scores, plain.scores, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)  # LLaMA's RMSNorm computes in float32
