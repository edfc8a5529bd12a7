"""The scheduler's side: which requests get their passages from a store, decided before the engine counts on it."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from generators.models.stitched.decoder import adapter_hash
from generators.models.vllm_contexts.claims import FIELD, Claim, blocks_of, claim_of
from generators.models.vllm_contexts.shelves import Catalogue, Placed, Reason, Refused
from rag.core.errors import AdapterError, InputError

_log = logging.getLogger("graft.contexts")
_REMEMBERED = 4096
"""Adapters whose hash is kept."""


class EngineRequest(Protocol):
    """What is read of vLLM's ``Request``, and its salt, which is set."""

    request_id: str
    prompt_token_ids: list[int] | None
    prompt_embeds: Any
    mm_features: Any
    resumable: bool
    kv_transfer_params: dict[str, Any] | None
    sampling_params: Any
    lora_request: Any
    skip_reading_prefix_cache: bool
    cache_salt: str | None
    block_hashes: list[Any]

    def update_block_hashes(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker shall write: the blocks of a prompt from position ``start`` on, into the cache's ``pages``."""

    request: str
    start: int
    pages: tuple[int, ...]
    blocks: tuple[Placed, ...]

    @property
    def end(self) -> int:
        """Where the question begins."""
        return self.blocks[-1].block.end


@dataclass(slots=True)
class _Plan:
    request: EngineRequest
    salt: tuple[Any, ...]
    blocks: tuple[Placed, ...]
    counted: bool = False
    loaded: int = 0

    @property
    def end(self) -> int:
        return self.blocks[-1].block.end


class SchedulerSide:
    """Plans each request when it arrives. ``unfit`` is why this server can use no store at all, if it cannot.

    A prompt that is planned gets a salt of this server's making: what the engine keeps of it is then found by prompts of the same borders,
    tenant and adapter alone, never by one that is read in full, nor does one of those lend it anything. Whatever a request claims, nothing
    is raised: what cannot be planned is read in full, and counted.
    """

    def __init__(self, catalogue: Catalogue, unfit: Reason | None = None) -> None:
        self._catalogue, self._unfit = catalogue, unfit
        self._secret = secrets.token_hex(16)
        self._generation = 0
        self._plans: dict[str, _Plan] = {}
        self._refused: dict[str, Reason] = {}
        self._loads: dict[str, Load] = {}
        self._adapters: dict[tuple[int, str], str] = {}
        self.requests = 0
        """Admitted with stitched contexts, from a store or as the engine itself had kept them; counted until `counts` is asked."""
        self.fallbacks: Counter[str] = Counter()

    def arrived(self, request: EngineRequest) -> None:
        """A request is new."""
        try:
            self._plan(request)
        except Refused as refused:
            self._refuse(request, refused.reason, str(refused))
        except InputError as error:
            self._refuse(request, "claim", str(error))
        except Exception:  # a request must never end the engine
            _log.exception("a request for contexts could not be planned")
            self._plans.pop(request.request_id, None)
            self._refuse(request, "error", "")

    def matched(self, request: EngineRequest, local: int) -> int:
        """Tokens to load behind the ``local`` ones that the engine has kept."""
        plan = self._plans.get(request.request_id)
        return max(0, plan.end - local) if plan else 0

    def allocated(self, request: EngineRequest, pages: Sequence[int], tokens: int) -> None:
        """The engine counts on ``tokens`` of them, in these pages, which are all that the request has."""
        plan = self._plans.get(request.request_id)
        if plan is None:
            return
        if not plan.counted:
            plan.counted = True
            self.requests += 1
        if tokens > 0:
            plan.loaded = tokens
            self._loads[request.request_id] = Load(request.request_id, plan.end - tokens, tuple(pages), plan.blocks)

    def loads(self) -> tuple[Load, ...]:
        """What the next step's workers shall write; asked once a step."""
        loads, self._loads = tuple(self._loads.values()), {}
        return loads

    def failed(self, requests: Collection[str]) -> None:
        """Workers could not write these: the engine reads them in full. What it keeps of them is never found again."""
        self._catalogue.forget()
        self._generation += 1
        for name in requests:
            if plan := self._plans.pop(name, None):
                self._refuse(plan.request, "damaged", "it was sound when it was promised, and could not be loaded")
        for plan in self._plans.values():
            if not plan.counted:
                self._salt(plan.request, *plan.salt)

    def finished(self, request: EngineRequest) -> dict[str, Any] | None:
        """What the answer tells its caller; None for a request that claimed nothing."""
        plan, reason = self._plans.pop(request.request_id, None), self._refused.pop(request.request_id, None)
        self._loads.pop(request.request_id, None)
        if plan is None and reason is None:
            return None
        return {FIELD: {"stitched": plan.end if plan else 0, "loaded": plan.loaded if plan else 0, "fallback": reason}}

    def counts(self) -> tuple[int, dict[str, int]]:
        """Requests and fallbacks since the last time."""
        requests, fallbacks = self.requests, dict(self.fallbacks)
        self.requests, self.fallbacks = 0, Counter()
        return requests, fallbacks

    def _plan(self, request: EngineRequest) -> None:
        claim = claim_of(request.kv_transfer_params)
        if claim is None:
            return
        if not self._catalogue.admitted(claim):
            raise Refused("tenant", "the tenant is unknown or its key is wrong")
        adapter = self._adapter(request.lora_request)
        salt = (claim.tenant, adapter, request.cache_salt)
        if claim.tenant is not None:  # what a tenant's prompts leave behind is found by no one else, whatever becomes of this one
            self._salt(request, "plain", *salt)
        if self._unfit is not None:
            raise Refused(self._unfit)
        blocks = blocks_of(claim, self._tokens(request))
        placed = tuple(self._catalogue.find(claim.tenant, adapter, blocks))
        stitched = ("stitched", *claim.borders, *salt)
        self._salt(request, *stitched)
        self._plans[request.request_id] = _Plan(request, stitched, placed)

    def _tokens(self, request: EngineRequest) -> list[int]:
        tokens = request.prompt_token_ids
        if tokens is None or request.prompt_embeds is not None or request.mm_features or request.resumable:
            raise Refused("prompt", "the prompt is more than tokens")
        scored = request.sampling_params is None or request.sampling_params.prompt_logprobs is not None
        if scored or request.skip_reading_prefix_cache:
            raise Refused("scored", "log-probabilities of the prompt are computed, not kept")
        return tokens

    def _adapter(self, worn: Any) -> str | None:
        if worn is None:
            return None
        key = int(worn.lora_int_id), str(worn.lora_path)  # a number is never given to other weights
        if key not in self._adapters:
            if len(self._adapters) >= _REMEMBERED:
                self._adapters.clear()
            try:
                self._adapters[key] = adapter_hash(Path(key[1]))
            except AdapterError as error:
                raise Refused("adapter", str(error)) from None
        return self._adapters[key]

    def _salt(self, request: EngineRequest, *parts: Any) -> None:
        named = json.dumps([self._secret, self._generation, *parts])
        request.cache_salt = hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()
        request.block_hashes.clear()
        request.update_block_hashes()

    def _refuse(self, request: EngineRequest, reason: Reason, detail: str) -> None:
        self.fallbacks[reason] += 1
        self._refused[request.request_id] = reason
        _log.debug("request %s is read in full: %s (%s)", request.request_id, reason, detail)


def claim_for(borders: Sequence[int], tenant: str | None = None, key: str | None = None) -> dict[str, Any]:
    """``kv_transfer_params`` of a request. Raises `pydantic.ValidationError`."""
    claim = Claim(borders=list(borders), tenant=tenant, key=key)
    return {FIELD: claim.model_dump(exclude_none=True)}
