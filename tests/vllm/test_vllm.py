"""The model on a real vLLM server against the same model in process, both in float32."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from generators.models.local import Local
from generators.models.vllm import VLLM
from rag.core.errors import ModelRefused, PromptTooLong
from rag.core.types import Generation, Message, Prompt, Sampling

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

PROMPTS: list[Prompt] = [
    "The capital of France is",
    "Once upon a time, in a small village,",
    "def fibonacci(n):\n",
    "Water boils at",
    "The three primary colours are",
    "1, 1, 2, 3, 5, 8,",
    "Dear Sir or Madam,\n\n",
    "Photosynthesis is the process by which",
    "中国的首都是北京。日本的首都是",
    "Der Mond ist",
    "La tour Eiffel se trouve à",
    "SELECT name FROM users WHERE",
    "Q: Who wrote Hamlet?\nA:",
    "The recipe needs flour, eggs and",
    [Message("user", "What is the capital of France?")],
    [Message("user", "Name three fruits.")],
    [Message("system", "Answer in one word."), Message("user", "What colour is the sky?")],
    [Message("user", "Repeat exactly: 你好世界😀")],
    [Message("user", "Write a haiku about rain.")],
    [Message("user", "Hi!"), Message("assistant", "Hello! How can I help?"), Message("user", "Tell me a fact about whales.")],
]
LENGTH = 32
TIE = 1e-3


def together(model: VLLM | Local, prompts: Sequence[Prompt], sampling: Sampling) -> list[Generation]:
    return model.generate_many(prompts, sampling)


@pytest.fixture(scope="module")
def both(served: VLLM, local: Local) -> list[tuple[Generation, Generation]]:
    """Greedy answers of both engines to `PROMPTS`."""
    sampling = Sampling(max_tokens=LENGTH, logprobs=2)
    return list(zip(together(served, PROMPTS, sampling), together(local, PROMPTS, sampling), strict=True))


def shared(one: Generation, other: Generation) -> int:
    """How many tokens two generations share from the start."""
    equal = [x.id == y.id for x, y in zip(one.tokens, other.tokens, strict=False)]
    return equal.index(False) if False in equal else len(equal)


def test_greedy_texts_agree_but_for_ties(both: list[tuple[Generation, Generation]], capsys: pytest.CaptureFixture[str]) -> None:
    ties = []
    for number, (one, other) in enumerate(both):
        assert one.tokens
        at = shared(one, other)
        if at == len(one.tokens) == len(other.tokens):
            assert one.text == other.text
            assert (one.finish, one.generated_tokens) == (other.finish, other.generated_tokens)
            continue
        assert at < min(len(one.tokens), len(other.tokens)), f"prompt {number}: one answer is a beginning of the other"
        gaps = [tokens[at].top[0][2] - tokens[at].top[1][2] for tokens in (one.tokens, other.tokens)]
        assert max(gaps) < TIE, f"prompt {number} parts at token {at} with a gap of {max(gaps):.4f}: {one.text!r} / {other.text!r}"
        ties.append((number, at, max(gaps)))
    with capsys.disabled():
        print(f"\n{len(PROMPTS)} prompts, ties (prompt, token, gap): {ties or 'none'}")
    assert len(ties) <= len(PROMPTS) // 4


def test_prompts_take_the_same_tokens(both: list[tuple[Generation, Generation]]) -> None:
    for one, other in both:
        assert one.prompt_tokens == other.prompt_tokens


def test_logprobs_agree(both: list[tuple[Generation, Generation]], capsys: pytest.CaptureFixture[str]) -> None:
    differences = []
    for one, other in both:
        at = shared(one, other)
        for x, y in zip(one.tokens[:at], other.tokens[:at], strict=True):
            differences.append(abs(x.logprob - y.logprob))
            assert [value for _, _, value in x.top] == pytest.approx([value for _, _, value in y.top], abs=1e-2)
            assert (x.text, x.start, x.end) == (y.text, y.start, y.end)
    with capsys.disabled():
        print(f"\nlargest difference of {len(differences)} log-probabilities: {max(differences):.2e}")
    assert len(differences) > 100
    assert max(differences) < 1e-2


def test_tokens_tile_the_text(both: list[tuple[Generation, Generation]]) -> None:
    for pair in both:
        for generation in pair:
            assert "".join(generation.text[t.start : t.end] for t in generation.tokens) == generation.text
            assert "�" not in generation.text


@pytest.mark.parametrize("logprobs", [0, 3])
def test_chinese_offsets(served: VLLM, logprobs: int) -> None:
    got = served.generate("重复：北京上海广州。北京上海", Sampling(max_tokens=24, logprobs=logprobs))
    assert any(t.text == "" for t in got.tokens)
    assert any(len(t.text.encode()) == 3 for t in got.tokens)
    assert all(got.text[t.start : t.end] == t.text for t in got.tokens)
    assert "".join(t.text for t in got.tokens) == got.text


@pytest.mark.parametrize("prompt", [PROMPTS[0], PROMPTS[8], PROMPTS[14]])
@pytest.mark.parametrize("logprobs", [None, 0, 2])
def test_streaming_equals_generating(served: VLLM, prompt: Prompt, logprobs: int | None) -> None:
    sampling = Sampling(max_tokens=24, logprobs=logprobs, stop=("\n",))
    *pieces, last = served.stream(prompt, sampling)
    whole = served.generate(prompt, sampling)
    assert isinstance(last, Generation)
    assert "".join(str(piece) for piece in pieces) == last.text == whole.text
    assert [(t.id, t.start, t.end) for t in last.tokens] == [(t.id, t.start, t.end) for t in whole.tokens]
    assert (last.finish, last.prompt_tokens, last.generated_tokens) == (whole.finish, whole.prompt_tokens, whole.generated_tokens)


@pytest.mark.parametrize("stop", ["6,", ", 7", "8"])
def test_stop(served: VLLM, local: Local, stop: str) -> None:
    sampling = Sampling(max_tokens=30, stop=(stop, "never"), logprobs=0)
    one, other = served.generate("Count: 1, 2, 3,", sampling), local.generate("Count: 1, 2, 3,", sampling)
    assert stop not in one.text
    assert (one.text, one.finish, one.generated_tokens) == (other.text, "stop", other.generated_tokens)
    assert [(t.id, t.text) for t in one.tokens] == [(t.id, t.text) for t in other.tokens]
    assert "".join(t.text for t in one.tokens) == one.text


def test_score_agrees(served: VLLM, local: Local, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [(p, c) for p in PROMPTS[::3] for c in (" Paris", "你好，世界😀", " and then the whole village came together.")]

    async def score(model: VLLM | Local) -> list[Generation]:
        return await asyncio.gather(*(model.ascore(*pair) for pair in pairs))

    largest = 0.0
    for (_, continuation), one, other in zip(pairs, asyncio.run(score(served)), asyncio.run(score(local)), strict=True):
        assert [(t.id, t.text, t.start) for t in one.tokens] == [(t.id, t.text, t.start) for t in other.tokens]
        assert "".join(t.text for t in one.tokens) == continuation
        largest = max(largest, *(abs(x.logprob - y.logprob) for x, y in zip(one.tokens, other.tokens, strict=True)))
    with capsys.disabled():
        print(f"\nlargest difference of a scored log-probability: {largest:.2e}")
    assert largest < 1e-2


def test_counts_agree(served: VLLM, local: Local) -> None:
    assert [served.count(p) for p in PROMPTS] == [local.count(p) for p in PROMPTS]


def test_thirty_two_at_once(served: VLLM) -> None:
    prompts = [f"Number {n}: the square of {n} is" for n in range(32)]
    sampling = Sampling(max_tokens=8, logprobs=2)
    alone = [served.generate(prompt, sampling) for prompt in prompts[:4]]
    got = together(served, prompts, sampling)
    assert len(got) == 32
    assert all(generation.generated_tokens for generation in got)
    for one, other in zip(alone, got[:4], strict=True):
        at = shared(one, other)
        assert at == len(one.tokens) or one.tokens[at].top[0][2] - one.tokens[at].top[1][2] < TIE


def test_the_window(served: VLLM) -> None:
    assert (served.name, served.window) == ("smollm2", 4096)
    with pytest.raises(PromptTooLong, match="4096"):
        served.generate("word " * 5000)
    filled = served.generate("word " * 4000, Sampling(max_tokens=500))
    assert filled.prompt_tokens + filled.generated_tokens <= 4096
    with pytest.raises(PromptTooLong):
        served.score("word " * 4000, "word " * 100)


def test_seeds_and_bias(served: VLLM) -> None:
    def write(seed: int) -> str:
        return served.generate("The weather today", Sampling(max_tokens=20, temperature=1.0, seed=seed)).text

    assert write(1) == write(1)
    assert len({write(seed) for seed in range(4)}) > 1
    token = served.generate("The weather today", Sampling(max_tokens=1, logprobs=0)).tokens[0].id
    assert served.generate("The weather today", Sampling(max_tokens=1, logprobs=0, logit_bias={token: -100.0})).tokens[0].id != token


def test_seeded_requests_with_long_prompts_at_once(served: VLLM) -> None:
    """Together they pass what the server reads in one step; its CPU build died when it read a seeded prompt in two."""
    prompts = [f"{number}: " + "one two three four five " * 150 for number in range(6)]
    written = together(served, prompts, Sampling(max_tokens=4, temperature=0.8, seed=3))
    assert all(generation.text for generation in written)
    assert sum(generation.prompt_tokens for generation in written) > 4096


def test_log_probabilities_of_named_tokens_agree(served: VLLM, local: Local) -> None:
    ids = tuple(local.generate(PROMPTS[0], Sampling(max_tokens=1, logprobs=20)).tokens[0].top[place][0] for place in (0, 9, 19))
    here, there = (m.generate(PROMPTS[0], Sampling(max_tokens=3, logprob_ids=ids)) for m in (local, served))
    for ours, theirs in zip(here.tokens, there.tokens, strict=True):
        assert {id for id, _, _ in theirs.top} == set(ids)
        assert [value for _, _, value in theirs.top] == pytest.approx([value for _, _, value in ours.top], abs=1e-3)


def test_an_answer_that_was_begun_is_continued(served: VLLM, local: Local) -> None:
    chat = [Message("user", "Name the planets of the solar system.")]
    whole = served.generate(chat, Sampling(max_tokens=24, logprobs=0))
    cut = whole.tokens[12].start
    begun = [*chat, Message("assistant", whole.text[:cut])]
    assert served.count(begun) == local.count(begun)
    assert whole.text[:cut] + served.generate(begun, Sampling(max_tokens=12)).text == whole.text


def test_a_text_that_is_enough_ends(served: VLLM) -> None:
    prompt = [Message("user", "Name the planets of the solar system, one sentence for each.")]
    whole = served.generate(prompt, Sampling(max_tokens=60, logprobs=0, stop=("\n\n\n",)))
    part = served.generate(prompt, Sampling(max_tokens=60, logprobs=0, stop=("\n\n\n",), until=lambda text: len(text) > 40))
    assert part.finish == "stop"
    assert whole.text.startswith(part.text)
    assert 40 < len(part.text) < len(whole.text)
    assert "".join(token.text for token in part.tokens) == part.text
    assert [t.logprob for t in part.tokens[:5]] == pytest.approx([t.logprob for t in whole.tokens[:5]], abs=1e-3)


def test_refusals(served: VLLM) -> None:
    with pytest.raises(ModelRefused, match="nobody"):
        served.with_adapter("nobody").generate("a")
    with pytest.raises(ModelRefused, match="/nowhere"):
        served.load_adapter("mine", "/nowhere")
    with pytest.raises(ModelRefused, match="vocab"):
        served.generate("a", Sampling(logit_bias={10**6: 1.0}))


def test_an_adapter_is_loaded_worn_and_unloaded(served: VLLM, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(1)
    weights: dict[str, Any] = {}
    for layer in range(30):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights |= {f"{name}.lora_A.weight": torch.randn(4, 576) * 0.2, f"{name}.lora_B.weight": torch.randn(576, 4) * 0.2}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    dressed = served.load_adapter("mine", str(tmp_path))
    try:
        bare, worn = served.score("The capital of France is", " Paris."), dressed.score("The capital of France is", " Paris.")
        assert abs(bare.logprob - worn.logprob) > 0.1
        got = dressed.generate("The capital of France is", Sampling(max_tokens=8, logprobs=1))
        assert (got.model, dressed.name, dressed.window) == ("mine", "mine", 4096)
        assert "".join(t.text for t in got.tokens) == got.text
        again = together(served, ["The capital of France is"] * 4, Sampling(max_tokens=8))
        assert {g.text for g in again} == {served.generate("The capital of France is", Sampling(max_tokens=8)).text}
    finally:
        served.unload_adapter("mine")
    with pytest.raises(ModelRefused, match="mine"):
        dressed.generate("a")


def test_a_stream_that_is_left_early_frees_the_server(served: VLLM) -> None:
    for piece in served.stream("Once upon a time", Sampling(max_tokens=2000)):
        assert piece
        break
    assert served.generate("The capital of France is", Sampling(max_tokens=2)).text
