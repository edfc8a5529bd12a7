"""What `rag contexts check` found out about a store and a server, kept beside the store's passages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from generators.models.vllm_contexts.metrics import Counted, identity_label
from rag.core.errors import ConfigError, CorpusMismatch
from retrievers.context.encoded import ModelIdentity
from retrievers.corpus import durable

FILE = "certificates.json"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A server of this version and dtype answers from a store of this model as the block mask does.

    ``difference`` is the largest between log-probabilities of the first token, the server's and the reference's over the same stored
    numbers; ``tolerance`` what was allowed. ``numbers_difference`` is what the store's number format adds to it.
    """

    version: str
    dtype: str
    identity: str
    numbers: str
    difference: Annotated[float, Field(ge=0)]
    tolerance: Annotated[float, Field(gt=0)]
    numbers_difference: Annotated[float, Field(ge=0)]
    prompts: Annotated[int, Field(ge=1)]
    date: str

    def covers(self, server: Counted, model: ModelIdentity) -> bool:
        """Whether it was given for this server's kind and this model."""
        return (self.version, self.dtype, self.identity) == (server.version, server.dtype, label_of(model))


_ALL = TypeAdapter(list[Certificate])


def certificates(store: Path) -> list[Certificate]:
    """Those of the store at ``store``; a file that cannot be read holds none."""
    try:
        return _ALL.validate_json((store / FILE).read_bytes())
    except (OSError, ValidationError):
        return []


def certify(store: Path, new: Certificate) -> None:
    """Keep ``new`` instead of an earlier one for the same kind of server and model. Raises `ConfigError` if that cannot be written."""
    kind = new.version, new.dtype, new.identity
    kept = [one for one in certificates(store) if (one.version, one.dtype, one.identity) != kind]
    temporary = store / f"{durable.TEMPORARY}{FILE}"
    try:
        durable.write(temporary, (json.dumps([asdict(one) for one in (*kept, new)], indent=1) + "\n").encode())
        durable.flush(temporary)
        durable.rename(temporary, store / FILE)
    except OSError as error:
        raise ConfigError(
            f"{store / FILE}: the certificate cannot be kept ({error.strerror}); check the store where it may be written to"
        ) from error


def check_served(store: Path, model: ModelIdentity, server: Counted, url: str) -> None:
    """Raise `ConfigError` if ``server`` has no connector, `CorpusMismatch` if it has no store of ``model``."""
    if not server.there:
        raise ConfigError(f"{url} loads no contexts: start it with them, as `rag serve --engine vllm --start --contexts {store}` does")
    if label_of(model) not in server.identities:
        raise CorpusMismatch(f"{url} has no store of the model and adapter of {store}: start it with that store among its --contexts")


def check_certified(store: Path, model: ModelIdentity, server: Counted, url: str, adapter: str | None) -> None:
    """Raise what `check_served` does, and `ConfigError` unless the store has a certificate for this kind of server."""
    check_served(store, model, server, url)
    if not any(one.covers(server, model) for one in certificates(store)):
        worn = f" --adapter {adapter}" if adapter else ""
        raise ConfigError(
            f"{store}: nobody has checked that vLLM {server.version} in {server.dtype} answers from it as it should;"
            f" `rag contexts check {store} --url {url}{worn}` does, in a minute"
        )


def unchecked(store: Path, url: str) -> str | None:
    """What to say of a server at ``url`` that is being started, if nobody has checked any with this store yet."""
    if certificates(store):
        return None
    return f"nobody has checked a vLLM server with {store}, so questions are refused until `rag contexts check {store} --url {url}` has"


def label_of(model: ModelIdentity) -> str:
    """As a server names the model of a store."""
    named: Mapping[str, object] = asdict(model)
    return identity_label(named)
