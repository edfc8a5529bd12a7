"""Adapters of a model in process: worn per request, over one set of weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from adapters import adapt  # noqa: E402
from adapters.methods import build  # noqa: E402
from generators.models.local import Local  # noqa: E402
from rag.core.errors import AdapterError, AdapterMismatch, MissingCapability  # noqa: E402
from rag.core.types import Sampling  # noqa: E402

PROMPTS = ["the cat sat", "a b c d", "once upon a time there was"]
SAMPLING = Sampling(max_tokens=12, logprobs=0)

Make = Callable[..., str]


@pytest.fixture(scope="module")
def make(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Save an adapter of random weights for the tiny model; gives its folder."""

    def made(method: str, seed: int, **options: Any) -> str:
        from transformers import AutoModelForCausalLM

        adapted = adapt(AutoModelForCausalLM.from_pretrained(tiny_folder), build(method, options))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapted.trained().values():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
        folder = tmp_path_factory.mktemp("adapters") / f"{method}-{seed}"
        adapted.save(folder)
        return str(folder)

    return made


def texts(model: Local) -> list[str]:
    return [generation.text for generation in model.generate_many(PROMPTS, SAMPLING)]


def test_each_adapter_writes_its_own_text_and_the_bare_model_is_left_as_it_was(tiny_folder: Path, make: Make) -> None:
    bare = Local(str(tiny_folder))
    before = bare.generate(PROMPTS[2], SAMPLING)  # alone: the company in a batch changes the rounding
    one, other = bare.with_adapter(make("LoRA", 1)), bare.with_adapter(make("SerialAdapter", 2, bottleneck=4))
    assert len({tuple(texts(bare)), tuple(texts(one)), tuple(texts(other))}) == 3
    assert texts(one) == texts(Local(str(tiny_folder), adapter=one.adapter))
    assert bare.generate(PROMPTS[2], SAMPLING) == before, "the same tokens with the same log-probabilities, bit for bit"


def test_all_in_flight_at_once_get_what_they_get_alone(tiny_folder: Path, make: Make) -> None:
    bare = Local(str(tiny_folder), max_batch=4)
    models = [bare, *(bare.with_adapter(make("LoRA", seed)) for seed in (3, 4))]
    alone = {model.name: texts(model) for model in models}

    async def together() -> list[Any]:
        return await asyncio.gather(*(model.agenerate(prompt, SAMPLING) for _ in range(4) for prompt in PROMPTS for model in models))

    for generation, (prompt, model) in zip(
        asyncio.run(together()), [(p, m) for _ in range(4) for p in range(len(PROMPTS)) for m in models], strict=True
    ):
        assert generation.model == model.name
        assert generation.text == alone[model.name][prompt]


def test_scores_are_the_adapters_too(tiny_folder: Path, make: Make) -> None:
    bare = Local(str(tiny_folder))
    worn = bare.with_adapter(make("LoRA", 5))
    generation = worn.generate(PROMPTS[0], SAMPLING)
    scored = worn.score(PROMPTS[0], generation.text)
    assert bare.score(PROMPTS[0], generation.text).logprob != pytest.approx(scored.logprob, abs=1e-3)


def test_an_adapter_by_its_name_in_the_registry(tiny_folder: Path, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapters.registry import Registry

    monkeypatch.setenv("GRAFT_ADAPTERS", str(tmp_path / "registry"))
    folder = make("LoRA", 6)
    Registry().add(folder, "legal")
    bare = Local(str(tiny_folder))
    assert texts(bare.with_adapter("legal")) == texts(bare.with_adapter(folder))


def test_what_cannot_be_worn_is_an_error_and_the_model_goes_on(tiny_folder: Path, make: Make, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    bare = Local(str(tiny_folder))
    before = texts(bare)
    with pytest.raises(AdapterError, match="there is no adapter 'nobody'"):
        bare.with_adapter("nobody").generate("a")
    stranger = adapt(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_folder)), build("LoRA", {}))
    stranger.save(tmp_path / "stranger")
    with pytest.raises(AdapterMismatch, match="was made for"):
        bare.with_adapter(str(tmp_path / "stranger")).generate("a")
    with pytest.raises(MissingCapability, match="in front of the prompt"):
        bare.with_adapter(make("PTuningV2", 1, length=2)).generate("a")
    with pytest.raises(MissingCapability, match="answer with Stitched"):
        bare.with_adapter(make("LinkTokens", 1, count=2)).generate("a")
    assert texts(bare) == before
