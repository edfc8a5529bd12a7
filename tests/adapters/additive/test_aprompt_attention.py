"""What the prompts do to the attention: against prompts that are real tokens, against key-value prompts, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from adapters import adapt
from adapters.additive.aprompt.config import APrompt
from adapters.anatomy import blocks
from tests.adapters.tiny import NAMES, batch_for, tiny

N, T = 3, 6
NEAR = {"rtol": 0, "atol": 2e-6}
"""RMSNorm and the rotary positions compute in float32."""


def made(name: str) -> Any:
    """`tiny`, and two LLaMA-like models that normalise their keys, each in another way."""
    sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    if name == "qwen3":
        model: Any = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**sizes, num_key_value_heads=2, head_dim=12))
    elif name == "olmo2":
        model = transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**sizes, num_key_value_heads=2))
    else:
        return tiny(name, torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
    return model.double().eval()


def scattered(adapted: Any) -> Any:
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in adapted.trained().values():
            parameter.normal_()
    return adapted


def hidden(model: Any, name: str, embeds: Tensor, positions: Tensor | None = None) -> Tensor:
    """The last layer's states for ``embeds`` [b, t, d]."""
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    given: dict[str, Any] = {} if positions is None else {"position_ids": positions}
    body = model.encoder if name == "t5" else model.base_model
    with torch.no_grad():
        states: Tensor = body(inputs_embeds=embeds, attention_mask=mask, **given).last_hidden_state
    return states


@pytest.mark.parametrize("name", [*NAMES, "qwen3", "olmo2"])
def test_input_prompts_alone_are_deep_prompt_tuning(name: str) -> None:
    """The reference has N more tokens in front, whose states each layer finds replaced by its prompt."""
    torch.manual_seed(1)
    embeds = torch.randn(2, T, 32, dtype=torch.float64)
    model, other = made(name), made(name)
    if name == "t5":  # no reference can give a token no position: leave none to any
        for each in (model, other):
            each.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.data.zero_()
    adapted = scattered(adapt(model, APrompt(N, 0, 0), head=()))

    def replace(prompt: Tensor) -> Any:
        def hook(_: Any, args: Any, kwargs: Any) -> Any:
            states = args[0].clone()
            states[:, :N] = prompt
            return (states, *args[1:]), kwargs

        return hook

    for key, prompt in adapted.trained().items():
        block = next(block for block in blocks(other) if key.startswith(f"{block.name}."))
        other.get_submodule(block.name).register_forward_pre_hook(replace(prompt), with_kwargs=True)
    positions = None if name == "t5" else torch.tensor([[0] * N + list(range(T))] * 2)
    expected = hidden(other, name, torch.cat([torch.zeros(2, N, 32, dtype=torch.float64), embeds], 1), positions)[:, N:]
    assert not torch.allclose(hidden(other, name, embeds), expected, **NEAR)
    torch.testing.assert_close(hidden(adapted.model, name, embeds), expected, **NEAR)


@pytest.mark.parametrize("name", [*NAMES, "qwen3"])
def test_an_input_prompt_is_a_key_value_prompt(name: str) -> None:
    """P in front of the input of a layer is (norm(P) W_k, norm(P) W_v) in front of its keys and values."""
    norms = {"llama": "input_layernorm", "qwen3": "input_layernorm", "gpt2": "ln_1", "t5": "layer.0.layer_norm"}
    one = scattered(adapt(made(name), APrompt(N, 0, 0), head=()))
    two = adapt(made(name), APrompt(0, 0, N), head=())
    for block in blocks(one.base)[:2]:
        where = block.attention.inner[0].rpartition(".")[0]
        prompt = one.trained()[f"{where}.input"]
        if name in norms:  # BERT has no norm there
            prompt = one.base.get_submodule(f"{block.name}.{norms[name]}")(prompt)
        layers = [one.base.get_submodule(inner)(prompt) for inner in block.attention.inner]
        key, value = layers[0].split(32, -1)[1:] if name == "gpt2" else layers[1:]
        if name == "qwen3":
            key = one.base.get_submodule(where).k_norm(key.view(N, -1, 12)).view(N, -1)
        two.worn.load_state({**two.worn.state(), f"{where}.key": key, f"{where}.value": value})
    embeds = torch.randn(2, T, 32, dtype=torch.float64)
    torch.testing.assert_close(hidden(one.model, name, embeds), hidden(two.model, name, embeds), rtol=0, atol=1e-12)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["bert", "t5"])
def test_all_three_sets_by_hand(name: str, implementation: str) -> None:
    """One attention, with the padding masked; T5's has position biases."""
    model = made(name)
    model.set_attn_implementation(implementation)
    adapted = scattered(adapt(model, APrompt(3, 2, 1), head=()))
    body = model.encoder if name == "t5" else model.bert
    block = blocks(model)[0]
    where = block.attention.inner[0].rpartition(".")[0]
    module = model.get_submodule(where)
    found: dict[str, Tensor] = {}
    module.register_forward_hook(lambda _, args, kwargs, out: found.update(x=args[0], out=out[0]), with_kwargs=True)
    batch = batch_for(name)
    body(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])

    def projected(index: int, x: Tensor) -> Tensor:
        return model.get_submodule(block.attention.inner[index])(x).unflatten(-1, (4, 8)).transpose(-3, -2)

    sets = {key.rpartition(".")[2]: value for key, value in adapted.trained().items() if key.startswith(f"{where}.")}
    prompt = model.encoder.block[0].layer[0].layer_norm(sets["input"]) if name == "t5" else sets["input"]

    def columns(index: int, second: Tensor, third: Tensor) -> Tensor:
        ours = torch.cat([second, third]).unflatten(-1, (4, 8)).transpose(0, 1)
        front = torch.cat([projected(index, prompt), ours], 1)
        return torch.cat([front.expand(3, -1, -1, -1), projected(index, found["x"])], 2)

    keys = columns(1, sets["query_key"], sets["key"])
    values = columns(2, torch.zeros_like(sets["query_key"]), sets["value"])
    scores = projected(0, found["x"]) @ keys.transpose(-1, -2)
    if name == "t5":
        scores[..., 6:] += module.compute_bias(7, 7)
    else:
        scores = scores / 8**0.5
    scores[..., 6:].masked_fill_(batch["attention_mask"][:, None, None] == 0, -torch.inf)
    expected = (scores.softmax(-1) @ values).transpose(1, 2).flatten(-2)
    expected = module.o(expected) if name == "t5" else expected
    torch.testing.assert_close(found["out"], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*NAMES, "qwen3"])
def test_the_order_of_prompts_changes_nothing(name: str) -> None:
    adapted = scattered(adapt(made(name), APrompt(N, N, N), head=()))
    embeds = torch.randn(2, T, 32, dtype=torch.float64)
    before = hidden(adapted.model, name, embeds)
    adapted.worn.load_state({key: value.flip(0) for key, value in adapted.worn.state().items()})
    torch.testing.assert_close(hidden(adapted.model, name, embeds), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_no_token_sees_a_later_one(name: str, masked: bool, implementation: str) -> None:
    model = made(name)
    model.set_attn_implementation(implementation)
    adapted = scattered(adapt(model, APrompt(2, 2, 2)))
    ids = batch_for(name)["input_ids"]
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % 100
    given = {"attention_mask": torch.ones_like(ids)} if masked else {}
    with torch.no_grad():
        one, two = (adapted.model(input_ids=each, **given).logits for each in (ids, other))
        alone = adapted.model(input_ids=ids[:, :1]).logits
    torch.testing.assert_close(one[:, :-1], two[:, :-1], rtol=0, atol=1e-12)
    assert not torch.allclose(one[:, -1], two[:, -1])
    torch.testing.assert_close(one[:, :1], alone, **NEAR)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name: str, left: bool, implementation: str) -> None:
    model = made(name)
    model.set_attn_implementation(implementation)
    adapted = scattered(adapt(model, APrompt(2, 2, 2)))
    body = adapted.base.encoder if name == "t5" else adapted.base.base_model
    ids = batch_for(name)["input_ids"][:1]
    pad, off = torch.full((1, 2), 1), torch.zeros(1, 2, dtype=torch.long)
    order = (lambda front, back: (back, front)) if left else (lambda front, back: (front, back))
    padded, mask = torch.cat(order(ids, pad), 1), torch.cat(order(torch.ones_like(ids), off), 1)
    given = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)} if name != "t5" else {}
    with torch.no_grad():
        found = body(input_ids=padded, attention_mask=mask, **given).last_hidden_state[mask == 1]
        expected = body(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(found, expected, **NEAR)


def test_an_encoder_decoder_writes_the_same_with_a_cache_and_without() -> None:
    adapted = scattered(adapt(tiny("t5", torch.float64), APrompt(2, 2, 2)))
    batch = batch_for("t5")
    given = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "max_new_tokens": 6, "do_sample": False}
    given |= {"eos_token_id": None}
    assert torch.equal(adapted.model.generate(use_cache=True, **given), adapted.model.generate(use_cache=False, **given))


def test_a_static_cache() -> None:
    adapted = scattered(adapt(tiny("llama", torch.float64), APrompt(2, 2, 2)))
    ids = batch_for("llama")["input_ids"]
    given = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, "disable_compile": True}
    static = adapted.model.generate(ids, cache_implementation="static", **given)
    assert torch.equal(static, adapted.model.generate(ids, use_cache=False, **given))
