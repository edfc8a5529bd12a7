"""A small model without weights, whose contexts lie in real stores, and requests as an engine has them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from generators.models.stitched.rotary import Frequencies, Rotary  # noqa: E402
from generators.models.vllm_contexts.served import Served  # noqa: E402
from generators.models.vllm_contexts.shelves import FIXED  # noqa: E402
from retrievers.context.build import build  # noqa: E402
from retrievers.context.encoded import Encoded, ModelIdentity, token_hash  # noqa: E402

FREQUENCIES = Frequencies(torch.tensor([1.0, 0.3, 0.1, 0.01]))
MODEL = ModelIdentity("w" * 64, "t" * 64, None, Rotary("half", FREQUENCIES).identity, layers=3, heads=2, head_dim=8)
TEXTS = {"a": "one two three", "b": "four five six seven", "c": "eight nine"}
BEFORE, BETWEEN = "before all", "between"


def tokens_of(text: str) -> tuple[int, ...]:
    """A token for each word."""
    return tuple(int.from_bytes(hashlib.sha256(word.encode()).digest()[:2]) for word in text.split())


class WordEncoder:
    """Numbers that follow from the text and the adapter."""

    def __init__(self, adapter: str | None = None) -> None:
        self.identity = replace(MODEL, adapter=adapter)

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        return [self.one(text) for text in texts]

    def one(self, text: str) -> Encoded:
        made = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(f"{self.identity.adapter} {text}".encode()).digest()[:6]))
        shape = (MODEL.layers, MODEL.heads, len(text.split()), MODEL.head_dim)
        return Encoded(tokens_of(text), torch.randn(shape, generator=made), torch.randn(shape, generator=made))


def built(path: Path, texts: dict[str, str] = TEXTS, adapter: str | None = None, around: bool = True) -> Path:
    """A store in float32 with a segment for each passage."""
    encoder = WordEncoder(adapter)
    build(path, texts.items(), encoder, "float32", segment_bytes=1)
    if around:
        build(path / FIXED, [("before.en", BEFORE), ("between", BETWEEN)], encoder, "float32")
    return path


@pytest.fixture
def served() -> Served:
    return Served(replace(MODEL, rotary=""), FREQUENCIES)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return built(tmp_path / "store")


def prompt(*texts: str) -> tuple[list[int], list[int]]:
    """Tokens and borders of a prompt with these passages and a question behind them."""
    blocks = [BEFORE]
    for number, text in enumerate(texts):
        blocks += [BETWEEN, text] if number else [text]
    tokens, borders = [], []
    for block in blocks:
        tokens += tokens_of(block)
        borders.append(len(tokens))
    return [*tokens, 1, 2, 3], borders


@dataclass
class Asked:
    """What the scheduler's side reads of vLLM's ``Request``."""

    request_id: str
    prompt_token_ids: list[int] | None
    kv_transfer_params: Any = None
    lora_request: Any = None
    cache_salt: str | None = None
    prompt_embeds: Any = None
    mm_features: Any = None
    resumable: bool = False
    skip_reading_prefix_cache: bool = False
    sampling_params: Any = field(default_factory=lambda: SimpleNamespace(prompt_logprobs=None))
    block_hashes: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.update_block_hashes()

    def update_block_hashes(self) -> None:
        if not self.block_hashes:
            self.block_hashes.append(token_hash(self.prompt_token_ids or []) + str(self.cache_salt))


@pytest.fixture
def ask() -> Callable[..., Asked]:
    """Makes a request of passages; its id counts up."""
    count = iter(range(1000))

    def make(*texts: str, params: Any = None, tenant: str | None = None, key: str | None = None, **more: Any) -> Asked:
        tokens, borders = prompt(*texts)
        claim = {"borders": borders} | ({"tenant": tenant} if tenant else {}) | ({"key": key} if key else {})
        return Asked(f"r{next(count)}", tokens, {"graft": claim} if params is None else params, **more)

    return make


SENTENCES = {"p1": "the cat sat on the mat", "p2": "Paris is the capital of France", "p3": "the dog ran to the cat"}


@pytest.fixture(scope="session")
def folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model with a window that holds a prompt."""
    made = tmp_path_factory.mktemp("wide") / "model"
    shutil.copytree(tiny_folder, made)
    config = json.loads((made / "config.json").read_text())
    (made / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 384}))
    return str(made)


@pytest.fixture(scope="session")
def encoder(folder: str) -> Any:
    """Encodes with it."""
    pytest.importorskip("transformers")
    from generators.models.stitched.encoder import LocalEncoder

    return LocalEncoder(folder, device="cpu")


@pytest.fixture
def kept(encoder: Any, tmp_path: Path) -> Path:
    """A store of its `SENTENCES`, with the fixed blocks."""
    from generators.models.vllm_contexts.fixed import build_fixed

    path = tmp_path / "kept"
    build(path, SENTENCES.items(), encoder, "float32")
    build_fixed(path, encoder, "float32")
    return path
