"""Adapters per request on a real vLLM server: mixed, in few slots, loaded and unloaded, and refused before they are sent."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from benchmarks.adapter_serving import MAX_RANK, TIE, Answer, Request, differences, requests, write_adapters
from generators.models.embedded import resolve
from generators.models.rack import Rack
from generators.models.vllm import VLLM
from rag.core.errors import AdapterError, AdapterMismatch, ModelError, ModelRefused
from rag.core.sync import run_sync
from rag.core.types import Message, Sampling

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

MIXED = 64
SAMPLING = Sampling(max_tokens=12, logprobs=2)
SKY = [Message("user", "Why is the sky blue?")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four LoRAs of random weights for the embedded model, of different ranks and layers."""
    from transformers import AutoModelForCausalLM

    return write_adapters(tmp_path_factory.mktemp("adapters"), AutoModelForCausalLM.from_pretrained(resolve("smollm2")))


@pytest.fixture(scope="module")
def asked(folders: dict[str, Path]) -> list[Request]:
    return requests(MIXED, list(folders))


@pytest.fixture
def bare(served: VLLM) -> Iterator[VLLM]:
    """The model on a server without adapters, before and after."""
    for name in served.served():
        served.unload_adapter(name)
    yield served
    for name in served.served():
        served.unload_adapter(name)


@pytest.fixture(scope="module")
def alone(served: VLLM, folders: dict[str, Path], asked: list[Request]) -> list[Answer]:
    """What each request gives by itself."""
    for name, folder in folders.items():
        served.load_adapter(name, folder, MAX_RANK)
    answers = [Answer.of(served.with_adapter(request.adapter).generate(prompt(request), SAMPLING)) for request in asked]
    for name in folders:
        served.unload_adapter(name)
    return answers


def prompt(request: Request) -> list[Message]:
    return [Message("user", request.question)]


def together(models: Sequence[VLLM], asked: Sequence[Request]) -> list[Answer]:
    async def run() -> list[Answer]:
        pairs = zip(models, asked, strict=True)
        written = await asyncio.gather(*(model.agenerate(prompt(request), SAMPLING) for model, request in pairs))
        return [Answer.of(generation) for generation in written]

    return run_sync(run())


def check_equal(asked: Sequence[Request], alone: Sequence[Answer], mixed: Sequence[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    found = differences(alone, mixed)
    named = [f"request {d.request} ({asked[d.request].adapter or 'base'}) at token {d.token}, gap {d.gap:.1e}" for d in found]
    with capsys.disabled():
        print(f"\n{len(asked)} requests, {len(asked) - len(found)} equal; ties below {TIE:g}: {'; '.join(named) or 'none'}")
    assert all(difference.tie for difference in found), named
    assert len(found) <= len(asked) // 8


def test_mixed_requests_give_what_each_gives_alone(
    bare: VLLM, folders: dict[str, Path], asked: list[Request], alone: list[Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    models = {None: bare, **{name: bare.load_adapter(name, folder, MAX_RANK) for name, folder in folders.items()}}
    assert bare.served() == {name: str(folder) for name, folder in folders.items()}
    assert len({model.generate(SKY, SAMPLING).text for model in models.values()}) == 5, "each answers in its own way"
    mixed = together([models[request.adapter] for request in asked], asked)
    check_equal(asked, alone, mixed, capsys)


def test_three_adapters_share_two_slots(
    bare: VLLM, folders: dict[str, Path], asked: list[Request], alone: list[Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    rack = Rack(bare, 2, MAX_RANK, folders=folders)
    chosen = [number for number, request in enumerate(asked) if request.adapter in (None, *list(folders)[:3])]
    some = [asked[number] for number in chosen]
    mixed = together([rack.wearing(request.adapter) for request in some], some)
    check_equal(some, [alone[number] for number in chosen], mixed, capsys)
    assert sorted(bare.served()) == sorted(rack.loaded)
    assert (len(rack.loaded), rack.loads >= 3) == (2, True)


def test_a_server_that_forgot_is_given_its_adapter_again(bare: VLLM, folders: dict[str, Path]) -> None:
    rack = Rack(bare, 2, MAX_RANK, folders=folders)
    worn = rack.wearing("one")
    before = worn.generate(SKY, SAMPLING).text
    bare.unload_adapter("one")
    with pytest.raises(ModelRefused, match="no adapter 'one' loaded; loaded are: none"):
        bare.with_adapter("one").generate(SKY, SAMPLING)
    assert worn.generate(SKY, SAMPLING).text == before
    assert "".join(piece for piece in worn.stream(SKY, SAMPLING) if isinstance(piece, str)) == before


def test_changed_weights_are_not_answered_from_the_old_ones_prompts(bare: VLLM, folders: dict[str, Path], tmp_path: Path) -> None:
    """vLLM keeps what it has read by name and path; a copy for each content keeps the two apart."""
    story = [Message("user", "Tell me about the sea. " * 40)]  # long enough for whole blocks of its cache
    place = tmp_path / "skill"
    shutil.copytree(folders["one"], place)
    first = Rack(bare, 1, MAX_RANK, folders={"skill": place}).wearing("skill").generate(story, SAMPLING).text
    shutil.rmtree(place)
    shutil.copytree(folders["three"], place)
    bare.unload_adapter("skill")
    second = Rack(bare, 1, MAX_RANK, folders={"skill": place}).wearing("skill").generate(story, SAMPLING).text
    assert second == bare.load_adapter("other", folders["three"], MAX_RANK).generate(story, SAMPLING).text
    assert second != first


def test_what_the_server_refuses_is_refused_before_it_is_sent(bare: VLLM, folders: dict[str, Path], tmp_path: Path) -> None:
    dora = tmp_path / "dora"
    shutil.copytree(folders["one"], dora)
    config = json.loads((dora / "adapter_config.json").read_text())
    (dora / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    with pytest.raises(AdapterError, match="vLLM refuses DoRA"):
        bare.load_adapter("dora", dora, MAX_RANK)
    with pytest.raises(AdapterError, match="above the server's 16; start vLLM with --max-lora-rank 64"):
        bare.load_adapter("four", folders["four"])
    strict = VLLM(bare.url, retries=0)
    with pytest.raises(ModelError, match="DoRA"):  # it would have been right
        run_sync(strict._http.tell("/v1/load_lora_adapter", {"lora_name": "dora", "lora_path": str(dora)}))
    assert bare.served() == {}


def test_an_adapter_of_a_smaller_model_is_refused_which_the_server_would_take(bare: VLLM, tmp_path: Path) -> None:
    from tests.adapters.lorahub.parts import saved

    small = saved(tmp_path / "small", r=8)
    with pytest.raises(AdapterMismatch, match="made for another model"):
        bare.load_adapter("small", small)
    run_sync(bare._http.tell("/v1/load_lora_adapter", {"lora_name": "small", "lora_path": str(small)}))
    assert bare.with_adapter("small").generate(SKY, SAMPLING).text
