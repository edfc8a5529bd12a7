"""Training data: JSON Lines, every line checked before any work begins. An error names the file and the line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.core.errors import InputError

ROLES = ("system", "user", "assistant")
FORMS = (
    '{"prompt", "answer"} for a language model, {"passages", "question", "answer"} for one that reads passages apart,'
    ' {"text", "label"} for a classifier, {"question", "positive"} for an encoder'
)


@dataclass(frozen=True)
class Answered:
    """A prompt, as text or as messages of a chat, and what the model shall write behind it."""

    prompt: str | tuple[dict[str, str], ...]
    answer: str


@dataclass(frozen=True)
class Grounded:
    """Passages as a prompt shows them, a question, and what the model shall answer from them."""

    passages: tuple[str, ...]
    question: str
    answer: str


@dataclass(frozen=True)
class Labelled:
    """A text, or two, and its class."""

    text: str
    text_pair: str | None
    label: str


@dataclass(frozen=True)
class Related:
    """A question, a passage that answers it, and passages that look as if they did (hard negatives)."""

    question: str
    positive: str
    negatives: tuple[str, ...]


Record = Answered | Grounded | Labelled | Related


@dataclass(frozen=True)
class DataFile:
    """A file that was read. All ``records`` are of one class."""

    path: Path
    records: Sequence[Record]
    sha256: str
    bytes: int


def read(path: str | Path) -> DataFile:
    """All records of a JSON Lines file; empty lines are skipped, unknown fields are ignored.

    Raises `InputError` with file and line for a line that is not JSON, lacks a field, or is of another form than the first.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    content = file.read_bytes()
    records: list[Record] = []
    for place, fields in _objects(file, content):
        record = _record(place, fields)
        if records and type(record) is not type(records[0]):
            raise InputError(f"{place}: this line is of another form than the first; a file is one of {FORMS}")
        records.append(record)
    if not records:
        raise InputError(f"{file}: there is no example in it; each line is one of {FORMS}")
    return DataFile(file, records, hashlib.sha256(content).hexdigest(), len(content))


def _objects(file: Path, content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            fields = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{place}: this is not UTF-8 ({error.reason} at byte {error.start} of the line)") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: this is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise InputError(f"{place}: a line is a JSON object, not {type(fields).__name__}")
        yield place, fields


def _record(place: str, fields: dict[str, Any]) -> Record:
    forms: dict[str, Callable[[str, dict[str, Any]], Record]] = {
        "prompt": _answered,
        "text": _labelled,
        "positive": _related,
        "passages": _grounded,
        "question": _related,
    }
    for name, make in forms.items():
        if name in fields:
            return make(place, fields)
    raise InputError(f"{place}: the fields are {', '.join(map(repr, fields)) or 'none'}; a line is one of {FORMS}")


def _answered(place: str, fields: dict[str, Any]) -> Answered:
    answer = _text(place, "answer", fields.get("answer"))
    prompt = fields["prompt"]
    return Answered(_messages(place, prompt) if isinstance(prompt, list) else _text(place, "prompt", prompt), answer)


def _messages(place: str, prompt: list[Any]) -> tuple[dict[str, str], ...]:
    if not prompt:
        raise InputError(f"{place}: 'prompt' is an empty list; give messages, or a text")
    for number, message in enumerate(prompt, start=1):
        if not isinstance(message, dict) or set(message) != {"role", "content"} or message["role"] not in ROLES:
            raise InputError(f"{place}: message {number} is not {{'role': one of {', '.join(ROLES)}, 'content': text}}")
        _text(place, f"the content of message {number}", message["content"])
    if prompt[-1]["role"] == "assistant":
        raise InputError(f"{place}: the last message is the assistant's own; what it shall write is 'answer'")
    return tuple({"role": message["role"], "content": message["content"]} for message in prompt)


def _grounded(place: str, fields: dict[str, Any]) -> Grounded:
    passages = fields["passages"]
    if not isinstance(passages, list) or not passages:
        found = "an empty list" if passages == [] else type(passages).__name__
        raise InputError(f"{place}: 'passages' is a list of one text or more, not {found}")
    texts = tuple(_text(place, f"passage {number}", text) for number, text in enumerate(passages, start=1))
    return Grounded(texts, _text(place, "question", fields.get("question")), _text(place, "answer", fields.get("answer")))


def _labelled(place: str, fields: dict[str, Any]) -> Labelled:
    label = fields.get("label")
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise InputError(f"{place}: 'label' is a text or a whole number, not {label!r}")
    pair = fields.get("text_pair")
    text = _text(place, "text", fields["text"])
    return Labelled(text, None if pair is None else _text(place, "text_pair", pair), _text(place, "label", str(label)))


def _related(place: str, fields: dict[str, Any]) -> Related:
    negatives = fields.get("negatives", [])
    if not isinstance(negatives, list):
        raise InputError(f"{place}: 'negatives' is a list of texts, not {type(negatives).__name__}")
    positive = _text(place, "positive", fields.get("positive"))
    wrong = tuple(_text(place, f"negative {number}", text) for number, text in enumerate(negatives, start=1))
    if positive in wrong:
        raise InputError(f"{place}: negative {wrong.index(positive) + 1} is the positive itself")
    return Related(_text(place, "question", fields.get("question")), positive, wrong)


def _text(place: str, name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{place}: '{name}' is {'missing' if value is None else type(value).__name__}; it is a text")
    if not value.strip():
        raise InputError(f"{place}: '{name}' is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: '{name}' holds half of a surrogate pair at character {error.start}") from None
    return value
