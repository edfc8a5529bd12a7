"""Building a store of contexts: what is missing is counted, its size is told, and then it is encoded batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from rag.core.errors import InputError, ModelError
from retrievers.context.encoded import Encoded, ModelIdentity
from retrievers.context.numbers import NumberFormat, check_encoded, number_format
from retrievers.context.store import ContextStore, Damage, text_hash
from retrievers.context.writer import ContextWriter, check_free, check_numbers, check_room, fingerprint
from retrievers.filters import check_text

SEGMENT_BYTES = 64 << 20
"""A stop loses no more than this much work, and so much is held in memory twice while it is written."""
_SAMPLE = 8
_BOOKKEEPING = 2048
"""Bytes of a passage's share of headers and index, at most, without its id."""


@runtime_checkable
class ContextEncoder(Protocol):
    """Makes keys and values of passages, each by itself from position 0. ``identity`` says whose they are."""

    @property
    def identity(self) -> ModelIdentity: ...

    def encode(self, texts: Sequence[str]) -> list[Encoded]: ...


@runtime_checkable
class Tokenises(Protocol):
    """An encoder that says beforehand which tokens `ContextEncoder.encode` makes of each text; without it their number is estimated."""

    def tokenised(self, texts: Sequence[str]) -> list[tuple[int, ...]]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build is going to write: ``bytes`` of tensors for ``tokens`` of the passages ``todo``, out of ``passages``.

    Where not ``exact``, tokens and bytes are estimated from a sample.
    """

    todo: tuple[str, ...]
    passages: int
    tokens: int
    bytes: int
    exact: bool

    @property
    def room(self) -> int:
        """Bytes that have to be free: with headers and index."""
        return self.bytes + sum(_BOOKKEEPING + 6 * len(id) for id in self.todo)  # JSON may need six letters for one


@dataclass(frozen=True, slots=True)
class Built:
    """What a build did: passages encoded, those that were there already, and those taken away (gone, changed or damaged)."""

    encoded: int
    kept: int
    removed: int


def build(
    path: str | Path,
    contexts: Iterable[tuple[str, str]],
    encoder: ContextEncoder,
    numbers: str | None = None,
    *,
    prune: bool = False,
    repair: bool = False,
    batch: int = 8,
    segment_bytes: int = SEGMENT_BYTES,
    announce: Callable[[Plan], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Encode the passages (id, text) that the store at ``path`` does not have yet; the same call goes on where an earlier one stopped.

    ``numbers``: "float16", "int8" or "int4" (None: as the store is, float16 for a new one). With ``prune`` what is not among ``contexts``
    is taken away; with ``repair`` every byte is checked first, and what is damaged encoded anew. ``announce`` is told the plan before a
    byte is written, ``progress`` the passages encoded so far and their total after each batch. Raises `InputError`, `CorpusMismatch`
    (another model or format), `CorpusLocked`, `CorpusError` (no room), `ModelError` (the encoder returned nonsense).
    """
    if batch < 1 or segment_bytes < 1:
        raise InputError(f"batch ({batch}) and segment_bytes ({segment_bytes}) must be 1 or more")
    folder, model = Path(path), encoder.identity
    texts = _checked(contexts)
    hashes = {id: text_hash(text) for id, text in texts.items()}
    fresh = check_free(folder)
    form, known, damage = _as_it_is(folder, model, numbers, fresh, repair)
    form.check(model)
    plan = _plan(texts, [id for id in texts if known.get(id) != hashes[id]], encoder, model, form)
    if announce is not None:
        announce(plan)
    check_room(folder, plan.room)
    with ContextWriter(folder, model, form, segment_bytes) as writer:
        now = _sound(writer.store, damage)
        todo = [id for id in plan.todo if now.get(id) != hashes[id]]  # another build may have come in between
        for start in range(0, len(todo), batch):
            ids = todo[start : start + batch]
            for id, encoded in zip(ids, _encode(encoder, [texts[id] for id in ids], model), strict=True):
                writer.add(id, hashes[id], *form.pack(encoded))
            if progress is not None:
                progress(min(start + batch, len(todo)), len(todo))
        writer.commit()
        removed = writer.sweep(hashes if prune else None, {found.segment for found in damage})
        if hashes.items() <= writer.store.hashes().items():  # rewriting a segment may have met damage
            writer.finish(fingerprint(hashes))
    return Built(len(todo), len(texts) - len(todo), removed)


def _as_it_is(
    folder: Path, model: ModelIdentity, numbers: str | None, fresh: bool, repair: bool
) -> tuple[NumberFormat, dict[str, str], list[Damage]]:
    """The store's number format, its sound passages (id -> hash of the text), and what is damaged, as far as that was to be looked for."""
    form = number_format(numbers or "float16")
    if fresh:
        return form, {}, []
    store = ContextStore(folder, model, ram_bytes=0)
    if numbers is not None:
        check_numbers(store, form)
    damage = store.verify() if repair else []
    return store.numbers, _sound(store, damage), damage


def _sound(store: ContextStore, damage: Sequence[Damage]) -> dict[str, str]:
    damaged = {found.id for found in damage}
    return {id: text for id, text in store.hashes().items() if id not in damaged}


def _checked(contexts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Id -> text. Raises `InputError`."""
    texts: dict[str, str] = {}
    for id, text in contexts:
        if not isinstance(id, str) or not id or not isinstance(text, str):
            raise InputError(f"contexts are pairs of an id that is not empty and a text, both strings; {id!r} came")
        check_text(id, "the id of a passage")
        if not check_text(text, f"passage {id!r}").strip():
            raise InputError(f"passage {id!r} has no text: leave it out")
        if texts.get(id, text) != text:
            raise InputError(f"two passages are called {id!r}: ids must be unique")
        texts[id] = text
    if not texts:
        raise InputError("there are no passages to encode")
    return texts


def _plan(texts: dict[str, str], missing: list[str], encoder: ContextEncoder, model: ModelIdentity, form: NumberFormat) -> Plan:
    todo = sorted(missing, key=lambda id: -len(texts[id]))  # little padding in a batch, and the largest need for memory comes first
    exact = isinstance(encoder, Tokenises)
    if isinstance(encoder, Tokenises):
        counts = [len(encoder.tokenised([texts[id]])[0]) for id in todo]
    else:
        sample = [texts[id] for id in todo[:: max(1, len(todo) // _SAMPLE)][:_SAMPLE]]
        per_letter = sum(len(made.tokens) for made in _encode(encoder, sample, model)) / max(1, sum(map(len, sample)))
        counts = [max(1, round(len(texts[id]) * per_letter)) for id in todo]
    return Plan(tuple(todo), len(texts), sum(counts), sum(form.bytes(model, count) for count in counts), exact)


def _encode(encoder: ContextEncoder, texts: list[str], model: ModelIdentity) -> list[Encoded]:
    """Raises `ModelError` unless there is one for each text, of the model's shape."""
    made = encoder.encode(texts) if texts else []
    if len(made) != len(texts):
        raise ModelError(f"the encoder returned {len(made)} passages for {len(texts)} texts")
    for encoded, text in zip(made, texts, strict=True):
        check_encoded(encoded, model, f"passage beginning {text[:40]!r}")
    return made
