"""One passage on its way from a server of contexts to a client: its tensors as safetensors, and a label in a header."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Final

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from rag.core.errors import CorpusDamaged, CorpusMismatch
from retrievers.context.encoded import ModelIdentity
from retrievers.context.numbers import FORMATS, NumberFormat, Packed, checksum

PATH: Final = "/v1/contexts"
LABEL: Final = "Graft-Context"
"""The header: JSON in ASCII."""
SAFETENSORS: Final = "application/octet-stream"
_SPARE = 65_536
"""Bytes of a safetensors header, at most, and of the tokens that a tokenizer puts around a text."""
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Label:
    """Whose numbers a passage has, the hash of the text that was encoded, and that of the tensors (`numbers.checksum`)."""

    model: ModelIdentity
    text: _Digest
    sha256: _Digest

    def header(self) -> str:
        """As it is sent."""
        return json.dumps(asdict(self))


_LABEL = TypeAdapter(Label)


def written(packed: Packed) -> bytes:
    """The tensors as they are sent."""
    return save(dict(packed))


def received(header: str | None, body: bytes, model: ModelIdentity, text: str, where: str) -> Packed:
    """The tensors of ``body``, if they are what ``header`` says: of this ``model`` and of the text whose hash is ``text``.

    Raises `CorpusMismatch` for another model, `CorpusDamaged` for all else.
    """
    try:
        label = _LABEL.validate_json(header or "")
        tensors = load(body)
    except (ValidationError, SafetensorError, ValueError, KeyError) as error:
        raise CorpusDamaged(f"{where}: what it sent is no labelled safetensors ({str(error)[:200]})") from error
    check_identity(label.model, model, where)
    if label.text != text:
        raise CorpusDamaged(f"{where}: it sent a passage of another text")
    if format_of(tensors, model) is None:
        raise CorpusDamaged(f"{where}: the tensors that it sent are not those of a passage of this model")
    if checksum(tensors) != label.sha256:
        raise CorpusDamaged(f"{where}: the checksum of the tensors that it sent is wrong")
    return tensors


def check_identity(found: ModelIdentity, wanted: ModelIdentity, where: str) -> None:
    """Raise `CorpusMismatch` unless the numbers of the server at ``where`` are those of the model that will read them."""
    if found != wanted:
        differing = ", ".join(name for name, value in asdict(found).items() if value != asdict(wanted)[name])
        raise CorpusMismatch(
            f"{where}: its contexts were encoded by another model (another {differing}); keys and values of two models do not mix: use the"
            " model that built the store, or serve another store"
        )


def format_of(packed: Packed, model: ModelIdentity) -> NumberFormat | None:
    """The number format by which these are the tensors of a passage; None if there is none."""
    tokens = packed.get("tokens")
    if not isinstance(tokens, torch.Tensor) or tokens.dim() != 1 or not len(tokens):
        return None
    found = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in packed.items()}
    return next((form for form in FORMATS.values() if form.layout(model, len(tokens)) == found), None)


def most_bytes(text: str, model: ModelIdentity) -> int:
    """What the passage ``text`` can take on the wire in any format: a token has a byte of text or more."""
    return max(form.bytes(model, len(text.encode("utf-8", "surrogatepass")) + 8) for form in FORMATS.values()) + _SPARE
