"""A vLLM server with the connector as a script over a real small model: it answers as one that loads contexts does, or should not."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import httpx
import torch

from generators.models.stitched.decoder import Decoder
from generators.models.stitched.reference import joint
from generators.models.vllm import VLLM
from generators.models.vllm_contexts.metrics import FALLBACKS, INFO, REQUESTS, TOKENS, identity_label


class Engine:
    """``fault`` is what it does wrong: "unmasked" reads in full and says it did not, "shifted" is off by a little, "silent" says nothing of
    contexts, "uncounted" loads nothing as its metrics have it, "refused" reads in full and says so."""

    def __init__(self, decoder: Decoder, root: str, dtype: str = "float32", fault: str = "", contexts: bool = True) -> None:
        self.decoder, self.root, self.dtype, self.fault, self.contexts = decoder, root, dtype, fault, contexts
        self.version = "0.32.0"
        self.identities = [identity_label(asdict(decoder.identity))]
        self.requests = self.tokens = 0
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content) if request.content else {}
        if path == "/metrics":
            return httpx.Response(200, text=self._metrics())
        if path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "tiny", "root": self.root, "parent": None, "max_model_len": 384}]})
        if path == "/detokenize":
            return httpx.Response(200, json={"prompt": self.decoder.tokenizer.decode(body["tokens"])})
        assert path == "/v1/completions"
        self.bodies.append(body)
        return self._answer(body)

    def _metrics(self) -> str:
        lines = [f'{REQUESTS}_total{{engine="0"}} {self.requests}', f'{TOKENS}_total{{engine="0"}} {self.tokens}']
        for identity in self.identities:
            lines.append(f'{INFO}{{dtype="{self.dtype}",engine="0",identity="{identity}",version="{self.version}"}} 1.0')
        lines.append(f'{FALLBACKS}_total{{engine="0",reason="claim"}} 0.0')
        return "\n".join(lines if self.contexts else []) + "\n"

    def _answer(self, body: dict[str, Any]) -> httpx.Response:
        ids, claim = body["prompt"], body.get("kv_transfer_params", {}).get("graft")
        borders = claim["borders"] if claim and self.fault not in ("unmasked", "refused") else []
        told: Any = None
        if claim:
            refused = self.fault == "refused"
            loaded = 0 if refused else claim["borders"][-1]
            told = {"graft": {"stitched": loaded, "loaded": loaded, "fallback": "damaged" if refused else None}}
            self.requests += not refused
            self.tokens += 0 if self.fault == "uncounted" else loaded
        written, first = self._write(ids, borders, body["max_tokens"])
        choice = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length", "stop_reason": None, "token_ids": written}
        choice["text"] = self.decoder.tokenizer.decode(written, skip_special_tokens=True)
        if body.get("logprobs") is not None:
            names, found = [f"token_id:{token}" for token in written], [float(first[written[0]]), *[0.0] * (len(written) - 1)]
            choice["logprobs"] = {"tokens": names, "token_logprobs": found, "top_logprobs": None}
        if body.get("logprobs"):
            best = first.topk(body["logprobs"])
            top = {f"token_id:{token}": value for token, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)}
            choice["logprobs"]["top_logprobs"] = [top]
        answer = {"model": body["model"], "choices": [choice]}
        if body.get("stream"):
            return httpx.Response(200, content=f"data: {json.dumps(answer)}\n\ndata: [DONE]\n\n".encode())
        return httpx.Response(200, json=answer | ({} if self.fault == "silent" else {"kv_transfer_params": told}))

    def _write(self, ids: list[int], borders: list[int], most: int) -> tuple[list[int], torch.Tensor]:
        blocks = [ids[start:end] for start, end in pairwise([0, *borders, len(ids)])]
        written: list[int] = []
        first = torch.zeros(0)
        while len(written) < most:
            logits = joint(self.decoder, [*blocks[:-1], [*blocks[-1], *written]])[-1]
            if not written:
                first = logits.float().log_softmax(-1)
            token = int(logits.argmax())
            if token in self.decoder.ends:
                break
            written.append(token)
        if self.fault == "shifted" and borders:
            first = first + 0.05
        return written or [int(first.argmax())], first


def model(engine: Engine, **changes: Any) -> VLLM:
    """The model on it."""
    made = VLLM("http://models.example:8000/v1", retries=0, contexts=changes.pop("contexts", True), **changes)
    made._http.transport = httpx.MockTransport(engine)
    return made
