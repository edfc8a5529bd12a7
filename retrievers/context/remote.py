"""`RemoteContexts`: encoded passages from a server (`rag contexts serve`), by passage id."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import torch

from rag.core.errors import ConfigError, CorpusDamaged, CorpusError, InputError, ModelError
from retrievers.context.encoded import Encoded, ModelIdentity
from retrievers.context.numbers import FORMATS, Packed, check_encoded
from retrievers.context.store import Miss, text_hash
from retrievers.context.tiers import Tier
from retrievers.context.wire import LABEL, PATH, check_identity, format_of, most_bytes, received

_KEPT_AWAY = 10.0
"""Seconds in which a server that did not answer is not asked again: a question waits for it once."""
_IDENTITY_BYTES = 65_536


class RemoteContexts:
    """What a `ContextStore` offers a reader, from the server at ``url`` ("http://shelf:8090"); ``model`` is who will read.

    ``api_key`` is sent as a bearer token. A passage that does not come whole within ``seconds`` is a `Miss`, and so is one that is not of
    this model and this very text, or whose checksum is wrong; the next passages of a server that did not answer are misses at once, for a
    while. Redirects are not followed. ``ram_bytes`` bounds what is kept here, and a passage may take no more than its text can make. What
    comes is in ``dtype``. Safe for threads. Raises `InputError` for an address that is none.

    The server is trusted in one thing: that the numbers are those that the model made of the text. They could be told to be others only by
    encoding the text again.
    """

    def __init__(
        self,
        url: str,
        model: ModelIdentity,
        *,
        api_key: str | None = None,
        seconds: float = 2.0,
        ram_bytes: int = 1 << 30,
        dtype: torch.dtype = torch.float32,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = _checked(url)
        self.model = model
        self.dtype = dtype
        if not 0 < seconds <= 600:
            raise InputError(f"seconds is how long a passage may take to come, above 0 and at most 600, not {seconds!r}")
        self.seconds = seconds
        self.ram = Tier("ram", ram_bytes)
        self._away_until = 0.0
        self._why = ""
        self._lock = threading.Lock()
        headers = {"Accept-Encoding": "identity"} | ({} if api_key is None else {"Authorization": f"Bearer {api_key}"})
        self._client = httpx.Client(base_url=self.url, headers=headers, timeout=seconds, transport=transport, follow_redirects=False)

    def check(self) -> None:
        """Ask the server whose contexts it has, for a start that shall fail early.

        Raises `CorpusMismatch` if they are another model's, `ConfigError` if it does not answer as a server of contexts does.
        """
        try:
            status, _, body = self._fetched(PATH, {}, _IDENTITY_BYTES)
            if status != 200:
                raise ConfigError(
                    f"{self.url}: it answered {status} to {PATH}; name a server that `rag contexts serve` started, and its key"
                )
            found = ModelIdentity(**json.loads(body)["model"])
        except (httpx.HTTPError, CorpusDamaged) as error:
            raise ConfigError(f"{self.url}: the server of contexts does not answer ({_said(error)})") from error
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{self.url}: what answers there is no server of contexts ({error!r})") from error
        check_identity(found, self.model, self.url)

    def get(self, ids: Sequence[str], texts: Sequence[str]) -> list[Encoded | Miss]:
        """What the server has of each passage, provided that it was encoded from this very text. Raises `InputError` if the numbers
        differ."""
        if len(ids) != len(texts):
            raise InputError(f"get takes a text for each id: {len(ids)} ids and {len(texts)} texts came")
        return [self._get(id, text) for id, text in zip(ids, texts, strict=True)]

    def keep(self, id: str, text: str, encoded: Encoded, seconds: float) -> None:
        """Keep a passage that was encoded just now, in this process's memory only. ``seconds`` is what that took. Raises `ModelError`."""
        check_encoded(encoded, self.model, f"passage {id!r}")
        self.ram.put((id, text_hash(text)), FORMATS["float16"].pack(encoded)[0], seconds)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _get(self, id: str, text: str) -> Encoded | Miss:
        key = id, text_hash(text)
        packed = self.ram.get(key)
        if packed is None:
            started = time.perf_counter()
            asked = self._asked(id, text)
            if isinstance(asked, Miss):
                return asked
            packed = self.ram.put(key, asked, time.perf_counter() - started)
        form = format_of(packed, self.model)
        if form is None:  # it was checked when it came
            raise ModelError(f"passage {id!r} is kept in a form that this version does not know")
        return form.unpack(packed, self.dtype)

    def _asked(self, id: str, text: str) -> Packed | Miss:
        hashed = text_hash(text)
        with self._lock:
            if time.monotonic() < self._away_until:
                return Miss(id, "unreachable", self._why)
        try:
            status, label, body = self._fetched(f"{PATH}/passage", {"id": id, "text": hashed}, most_bytes(text, self.model))
        except httpx.HTTPError as error:
            return Miss(id, "unreachable", self._gone(error))
        except CorpusDamaged as error:
            return Miss(id, "damaged", str(error))
        if status != 200:
            return self._refused(id, status, body)
        try:
            return received(label, body, self.model, hashed, self.url)
        except CorpusError as error:  # CorpusMismatch too
            return Miss(id, "damaged", str(error))

    def _fetched(self, path: str, query: dict[str, str], most: int) -> tuple[int, str | None, bytes]:
        """Status, label and body, of at most ``most`` bytes, within ``seconds`` in all. Raises `httpx.HTTPError`, `CorpusDamaged`."""
        until = time.monotonic() + self.seconds
        body = bytearray()
        with self._client.stream("GET", path, params=query) as response:
            for piece in response.iter_raw():
                body += piece
                if len(body) > most:
                    raise CorpusDamaged(f"{self.url}: it sent more than the {most:,} bytes that this passage can take")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout(f"the answer was not whole after {self.seconds:g} s")
            return response.status_code, response.headers.get(LABEL), bytes(body)

    def _refused(self, id: str, status: int, body: bytes) -> Miss:
        code = ""
        with suppress(ValueError, TypeError, KeyError):
            code = str(json.loads(body)["error"]["code"])
        if code == "absent":
            return Miss(id, "absent")
        if code == "changed":
            return Miss(id, "changed")
        return Miss(id, "damaged", f"{self.url}: it answered {status}{f' ({code[:40]})' if code else ''}")

    def _gone(self, error: httpx.HTTPError) -> str:
        with self._lock:
            self._why = f"{self.url}: the server of contexts does not answer ({_said(error)})"
            self._away_until = time.monotonic() + _KEPT_AWAY
            return self._why


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(f"the address of a server of contexts cannot be read ({error}); give one such as http://shelf:8090") from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == 0
        or parts.username is not None
        or parts.query
        or parts.fragment
    ):
        raise InputError("the address of a server of contexts is http:// or https://, a host and a port, without user, query or fragment")
    return url.rstrip("/")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
