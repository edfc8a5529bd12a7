from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from generators.models.stitched.decoder import adapter_hash
from generators.models.vllm_contexts.scheduler import SchedulerSide
from generators.models.vllm_contexts.served import Served
from generators.models.vllm_contexts.shelves import Catalogue, Shelves, settings_of
from tests.generators.models.vllm_contexts.conftest import TEXTS, Asked, built, prompt

A, B, C = TEXTS.values()
KEY = hashlib.sha256(b"the key").hexdigest()


def side(served: Served, *stores: Path, unfit: Any = None, **owned: Path) -> SchedulerSide:
    listed = [{"path": str(path)} for path in stores] + [{"path": str(path), "tenant": name} for name, path in owned.items()]
    return SchedulerSide(Catalogue(settings_of({"stores": listed, "tenants": dict.fromkeys(owned, KEY)}), Shelves(served, 0)), unfit)


def test_a_prompt_of_stored_blocks_is_promised_up_to_the_question(served: Served, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, request = side(served, store), ask(B, A)
    tokens, borders = prompt(B, A)
    scheduler.arrived(request)
    assert scheduler.matched(request, 0) == scheduler.matched(request, 0) == borders[-1] == len(tokens) - 3
    assert scheduler.counts() == (0, {})
    scheduler.allocated(request, [4, 7], borders[-1])
    (load,) = scheduler.loads()
    assert (load.request, load.start, load.end, load.pages) == (request.request_id, 0, borders[-1], (4, 7))
    assert [placed.block.end for placed in load.blocks] == borders
    assert scheduler.loads() == ()
    assert scheduler.counts() == (1, {})
    assert scheduler.counts() == (0, {})
    assert scheduler.finished(request) == {"graft": {"stitched": borders[-1], "loaded": borders[-1], "fallback": None}}
    assert scheduler.finished(request) is None


def test_what_the_engine_has_kept_is_not_loaded_again(served: Served, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, request = side(served, store), ask(A)
    end = prompt(A)[1][-1]
    scheduler.arrived(request)
    assert scheduler.matched(request, 2) == end - 2
    assert scheduler.matched(request, end) == scheduler.matched(request, end + 2) == 0
    scheduler.allocated(request, [1], end - 2)
    assert scheduler.loads()[0].start == 2
    other = ask(A)
    scheduler.arrived(other)
    scheduler.allocated(other, [1], 0)
    assert scheduler.loads() == ()
    assert scheduler.counts()[0] == 2


def test_a_request_that_was_pushed_out_is_loaded_again_and_counted_once(served: Served, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, request = side(served, store), ask(A)
    scheduler.arrived(request)
    for _ in range(2):
        scheduler.allocated(request, [1], scheduler.matched(request, 0))
        assert len(scheduler.loads()) == 1
    assert scheduler.counts() == (1, {})


def test_a_plain_request_is_left_alone(served: Served, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler = side(served, store)
    for params in ({}, None, {"do_remote_decode": True}):
        request = ask(A, params=params or {}, cache_salt="mine")
        before = list(request.block_hashes)
        scheduler.arrived(request)
        assert scheduler.matched(request, 0) == 0
        scheduler.allocated(request, [1], 0)
        assert scheduler.finished(request) is None
        assert (request.cache_salt, request.block_hashes) == ("mine", before)
    assert scheduler.counts() == (0, {})


def test_each_reason_to_read_in_full_is_counted_and_told(served: Served, store: Path, tmp_path: Path, ask: Callable[..., Asked]) -> None:
    scheduler = side(served, store, red=built(tmp_path / "red"))
    scored = SimpleNamespace(prompt_logprobs=0)
    worn = SimpleNamespace(lora_int_id=1, lora_path=str(tmp_path / "nowhere"))
    asked = {
        "claim": [
            ask(A, params={"graft": {"borders": [3, 2]}}),
            ask(A, params={"graft": 5}),
            ask(A, params={"graft": {"borders": [10**9]}}),
        ],
        "prompt": [ask(A, mm_features=[1]), ask(A, prompt_embeds=1), ask(A, resumable=True)],
        "scored": [ask(A, sampling_params=scored), ask(A, skip_reading_prefix_cache=True), ask(A, sampling_params=None)],
        "tenant": [ask(A, tenant="red", key="wrong"), ask(A, tenant="blue", key="the key")],
        "adapter": [ask(A, lora_request=worn)],
        "absent": [ask(A, "nobody has this"), ask("nor this")],
    }
    for reason, requests in asked.items():
        for request in requests:
            scheduler.arrived(request)
            assert scheduler.matched(request, 0) == 0
            assert scheduler.finished(request) == {"graft": {"stitched": 0, "loaded": 0, "fallback": reason}}
    assert scheduler.counts() == (0, {reason: len(requests) for reason, requests in asked.items()})


def test_a_request_without_tokens_is_read_in_full(served: Served, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, request = side(served, store), ask(A)
    request.prompt_token_ids = None
    scheduler.arrived(request)
    assert scheduler.counts() == (0, {"prompt": 1})


def test_nothing_that_goes_wrong_ends_the_engine(served: Served, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, request = side(served, store), ask(A)
    request.block_hashes = None  # type: ignore[assignment] # as another version of vLLM may have it
    scheduler.arrived(request)
    assert scheduler.matched(request, 0) == 0
    assert scheduler.counts() == (0, {"error": 1})


def test_a_server_that_cannot_says_why(served: Served, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, request = side(served, store, unfit="dtype"), ask(A)
    scheduler.arrived(request)
    assert scheduler.counts() == (0, {"dtype": 1})


def salts(scheduler: SchedulerSide, *requests: Asked) -> list[str | None]:
    for request in requests:
        scheduler.arrived(request)
        assert request.cache_salt is None or request.block_hashes[0].endswith(request.cache_salt)
    return [request.cache_salt for request in requests]


def test_what_the_engine_keeps_is_found_only_by_prompts_of_the_same_kind(
    served: Served, store: Path, tmp_path: Path, ask: Callable[..., Asked]
) -> None:
    red, blue = built(tmp_path / "red"), built(tmp_path / "blue")
    scheduler = side(served, store, red=red, blue=blue)
    same, again = salts(scheduler, ask(A, B), ask(A, B))
    assert same == again
    assert len(str(same)) == 64  # vLLM takes no more than 128 and no slashes
    tokens, borders = prompt(A, B)
    otherwise = Asked("x", tokens, {"graft": {"borders": borders[1:]}})
    others = [
        ask(B, A),  # other borders: 4 + 3 words
        otherwise,
        ask(A, B, cache_salt="mine"),
        ask(A, B, tenant="red", key="the key"),
        ask(A, B, tenant="blue", key="the key"),
    ]
    found = salts(scheduler, *others)
    assert found.pop(1) is None  # read in full, and of no tenant: as it came
    assert len({same, *found}) == 5
    assert salts(side(served, store), ask(A, B)) != [same]  # nobody can name it


def test_a_tenants_prompt_that_is_read_in_full_is_not_found_by_others(
    served: Served, store: Path, tmp_path: Path, ask: Callable[..., Asked]
) -> None:
    scheduler = side(served, store, red=built(tmp_path / "red"), blue=built(tmp_path / "blue"))
    red, again, blue = (ask("nobody has this", tenant=name, key="the key") for name in ("red", "red", "blue"))
    wrong = ask("nobody has this", tenant="red", key="wrong")
    first, second, third, fourth = salts(scheduler, red, again, blue, wrong)
    assert first == second != third
    assert first is not None
    assert fourth is None
    assert scheduler.counts()[1] == {"absent": 3, "tenant": 1}
    assert salts(scheduler, ask(A, tenant="red", key="the key"))[0] not in (None, first)


def test_what_a_worker_could_not_load_is_counted_and_never_found_again(served: Served, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler = side(served, store)
    failing, running, waiting = ask(A), ask(A), ask(A)
    before, *_ = salts(scheduler, failing, running, waiting)
    for request in (failing, running):
        scheduler.allocated(request, [1], 5)
    assert len(scheduler.loads()) == 2
    scheduler.failed({failing.request_id})
    assert scheduler.counts() == (2, {"damaged": 1})
    assert scheduler.matched(failing, 0) == 0
    assert scheduler.finished(failing) == {"graft": {"stitched": 0, "loaded": 0, "fallback": "damaged"}}
    assert running.cache_salt == before
    assert waiting.cache_salt != before
    assert waiting.block_hashes[0].endswith(str(waiting.cache_salt))
    assert salts(scheduler, ask(A)) == [waiting.cache_salt]
    scheduler.failed({"unknown"})


def test_an_adapter_is_known_by_its_content(served: Served, store: Path, tmp_path: Path, ask: Callable[..., Asked]) -> None:
    folders = []
    for name in ("one", "copy", "two"):
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        (folders[-1] / "adapter_config.json").write_text("{}")
        (folders[-1] / "adapter_model.safetensors").write_bytes(b"2" if name == "two" else b"1")
    (folders[0] / "graft.json").write_text("its card, which a copy for a server lacks")
    scheduler = side(served, store, built(tmp_path / "worn", adapter=adapter_hash(folders[0])))
    for number, folder in enumerate(folders):
        scheduler.arrived(ask(A, lora_request=SimpleNamespace(lora_int_id=number, lora_path=str(folder))))
    scheduler.arrived(ask(A, lora_request=SimpleNamespace(lora_int_id=0, lora_path=str(folders[0]))))
    assert scheduler.counts() == (0, {"adapter": 1})


def test_a_request_that_ends_early_is_forgotten(served: Served, store: Path, ask: Callable[..., Asked]) -> None:
    scheduler, request = side(served, store), ask(A)
    scheduler.arrived(request)
    scheduler.allocated(request, [1], 5)
    scheduler.finished(request)
    assert scheduler.loads() == ()
    assert scheduler.matched(request, 0) == 0


@pytest.mark.parametrize("tokens", [0, 3])
def test_blocks_of_a_plain_request_are_not_noted(served: Served, store: Path, ask: Callable[..., Asked], tokens: int) -> None:
    scheduler = side(served, store)
    scheduler.allocated(ask(A), [1], tokens)
    assert scheduler.loads() == ()
