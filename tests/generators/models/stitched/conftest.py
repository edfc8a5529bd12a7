"""Small random decoders of every kind of rotary position, computed in float64 throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import (
    AutoTokenizer,
    GPTJConfig,
    GPTJForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from generators.models.stitched.decoder import Decoder
from generators.models.stitched.encoder import LocalEncoder

WINDOW = 96
_LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 24,
}
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 24}
_LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}


class Double(TorchFunctionMode):
    """What a model of transformers does in float32 whatever its weights are (norms, rotary tables, softmax), it does in float64 in here."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        swap = lambda value: torch.float64 if value is torch.float32 else value  # noqa: E731
        return func(*map(swap, args), **{name: swap(value) for name, value in (kwargs or {}).items()})


def _small(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": WINDOW,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **more,
    }


def llama(**more: Any) -> Any:
    return LlamaForCausalLM(LlamaConfig(**_small(**more)))


def neox(**more: Any) -> Any:
    settings = _small(rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}, **more)
    settings.pop("num_key_value_heads")
    return GPTNeoXForCausalLM(GPTNeoXConfig(**settings))


def gptj(**more: Any) -> Any:
    sizes = {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4, "n_positions": WINDOW}
    model = GPTJForCausalLM(GPTJConfig(vocab_size=300, initializer_range=0.3, bos_token_id=0, eos_token_id=1, **sizes, **more))
    places = torch.arange(WINDOW, dtype=torch.float64)[:, None]
    angles = places * (1.0 / (10000 ** (torch.arange(0, 4, 2, dtype=torch.int64) / 4))).double()
    for block in model.transformer.h:  # its table of angles, which it makes in float32
        block.attn.register_buffer("embed_positions", torch.cat([angles.sin(), angles.cos()], dim=1), persistent=False)
    return model


KINDS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "llama3": lambda: llama(rope_parameters=_LLAMA_3),
    "yarn": lambda: llama(rope_parameters=_YARN),
    "linear": lambda: llama(rope_parameters=_LINEAR),
    "neox": neox,
    "gptj": gptj,
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_small(head_dim=16))),
}


def random(model: Any) -> Any:
    """``model`` with every parameter drawn anew, norms and biases too: what is 1 or 0 hides errors."""
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name or "ln_" in name else 0.0, 0.3)
    return model.double().eval()


@pytest.fixture
def double() -> Iterator[None]:
    with Double():
        yield


@pytest.fixture(scope="session")
def tokenizer(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture
def decoder_of(tokenizer: Any, double: None) -> Callable[[Any], Decoder]:
    def build(model: Any) -> Decoder:
        return Decoder(model, tokenizer, type(model).__name__)

    return build


@pytest.fixture(params=sorted(KINDS))
def decoder(request: pytest.FixtureRequest, decoder_of: Callable[[Any], Decoder]) -> Decoder:
    """One of each kind."""
    torch.manual_seed(3)
    return decoder_of(random(KINDS[request.param]()))


@pytest.fixture
def one(decoder_of: Callable[[Any], Decoder]) -> Decoder:
    """A Llama, where the kind does not matter."""
    torch.manual_seed(3)
    return decoder_of(random(llama()))


@pytest.fixture
def encoder(one: Decoder) -> LocalEncoder:
    return LocalEncoder.over(one)


def tokens(seed: int, n: int) -> list[int]:
    """``n`` random ids."""
    return torch.randint(2, 300, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


CHUNKS = [tokens(1, 9), tokens(2, 5), tokens(3, 12)]
QUESTION = tokens(4, 6)
