from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from adapters.training.data import Answered, Grounded, Labelled, Related, read
from rag.core.errors import InputError


def test_all_forms_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"prompt": "q", "answer": "a", "other": 1}\n\n{"prompt": [{"role": "user", "content": "q"}], "answer": "a"}\r\n'
    )
    found = read(file)
    assert found.records == [Answered("q", "a"), Answered(({"role": "user", "content": "q"},), "a")]
    assert (found.bytes, found.sha256) == (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
    file.write_text('{"text": "t", "label": 1}\n{"text": "t", "text_pair": "u", "label": "x"}')
    assert read(file).records == [Labelled("t", None, "1"), Labelled("t", "u", "x")]
    file.write_text('{"question": "q", "positive": "p"}\n{"question": "q", "positive": "p", "negatives": ["n"]}')
    assert read(file).records == [Related("q", "p", ()), Related("q", "p", ("n",))]
    file.write_text('{"question": "q", "passages": ["p", "o"], "answer": "a"}\n{"passages": ["p"], "question": "q", "answer": "a", "x": 1}')
    assert read(file).records == [Grounded(("p", "o"), "q", "a"), Grounded(("p",), "q", "a")]
    file.write_text('{"question": "q", "positive": "p", "passages": ["x"]}\n{"prompt": "q", "answer": "a", "passages": ["x"]}')
    with pytest.raises(InputError, match=":2: this line is of another form"):
        read(file)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "a JSON object, not list"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b"{}", "the fields are none"),
        (b'{"question": "q", "x": 1}', "'positive' is missing"),
        (b'{"input": "q"}', "the fields are 'input'"),
        (b'{"prompt": "q"}', "'answer' is missing"),
        (b'{"prompt": 1, "answer": "a"}', "'prompt' is int"),
        (b'{"prompt": " ", "answer": "a"}', "'prompt' is empty"),
        (b'{"prompt": "q", "answer": ""}', "'answer' is empty"),
        (b'{"prompt": "q", "answer": "\\ud800"}', "surrogate"),
        (b'{"prompt": [], "answer": "a"}', "empty list"),
        (b'{"prompt": ["q"], "answer": "a"}', "message 1 is not"),
        (b'{"prompt": [{"role": "tool", "content": "q"}], "answer": "a"}', "system, user, assistant"),
        (b'{"prompt": [{"role": "assistant", "content": "q"}], "answer": "a"}', "the assistant's own"),
        (b'{"passages": "p", "question": "q", "answer": "a"}', "'passages' is a list of one text or more, not str"),
        (b'{"passages": [], "question": "q", "answer": "a"}', "not an empty list"),
        (b'{"passages": ["p", ""], "question": "q", "answer": "a"}', "'passage 2' is empty"),
        (b'{"passages": ["p"], "answer": "a"}', "'question' is missing"),
        (b'{"passages": ["p"], "question": "q"}', "'answer' is missing"),
        (b'{"positive": "p"}', "'question' is missing"),
        (b'{"text": "t"}', "'label' is a text or a whole number, not None"),
        (b'{"text": "t", "label": true}', "not True"),
        (b'{"text": "t", "label": 0.5}', "not 0.5"),
        (b'{"question": "q", "positive": "p", "negatives": "n"}', "'negatives' is a list of texts, not str"),
        (b'{"question": "q", "positive": "p", "negatives": ["n", "p"]}', "negative 2 is the positive itself"),
        (b'{"text": "t", "label": "x"}', "another form than the first"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: bytes, told: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"prompt": "q", "answer": "a"}\n\n' + line + b"\n")
    with pytest.raises(InputError) as failed:
        read(file)
    assert str(failed.value).startswith(f"{file}:3: ")
    assert told in str(failed.value)


def test_a_file_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="no example in it"):
        read(tmp_path / "empty.jsonl")
