"""Names under which a server counts what contexts saved it, and how a client reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from retrievers.context.manifest import digest

REQUESTS: Final = "vllm:graft_contexts_requests"
TOKENS: Final = "vllm:graft_contexts_tokens"
FALLBACKS: Final = "vllm:graft_contexts_fallbacks"
INFO: Final = "vllm:graft_contexts_info"

_LINE = re.compile(r"^(?P<name>vllm:graft_contexts_[a-z_]+?)(?:_total)?\{(?P<labels>[^}]*)\} (?P<value>\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"\\]*)"')


@dataclass(frozen=True, slots=True)
class Counted:
    """What a server has counted since it was started; ``versions``, ``dtypes`` and ``identities`` are those of its stores."""

    requests: int
    tokens: int
    fallbacks: Mapping[str, int]
    version: str | None
    dtype: str | None
    identities: frozenset[str]

    @property
    def there(self) -> bool:
        """Whether the server has the connector."""
        return self.version is not None


def counted(text: str) -> Counted:
    """Read ``/metrics``."""
    requests = tokens = 0.0
    fallbacks: dict[str, int] = {}
    stores: list[dict[str, str]] = []
    for line in _LINE.finditer(text):
        labels, value = dict(_LABEL.findall(line["labels"])), float(line["value"])
        if line["name"] == REQUESTS:
            requests += value
        elif line["name"] == TOKENS:
            tokens += value
        elif line["name"] == FALLBACKS:
            fallbacks[labels["reason"]] = fallbacks.get(labels["reason"], 0) + int(value)
        elif line["name"] == INFO:
            stores.append(labels)
    first = stores[0] if stores else {}
    return Counted(
        int(requests),
        int(tokens),
        fallbacks,
        first.get("version"),
        first.get("dtype"),
        frozenset(labels["identity"] for labels in stores),
    )


def identity_label(identity: Mapping[str, Any]) -> str:
    """A store's model in few letters."""
    return digest(dict(identity))[:32]
