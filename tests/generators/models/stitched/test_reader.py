from __future__ import annotations

import pytest

from generators.models.decoding import Writing
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.prompt import PASSAGES
from generators.models.stitched.reader import Reader
from rag.core.errors import InputError
from rag.core.types import Sampling
from retrievers.context.store import Miss
from tests.generators.models.stitched.conftest import WINDOW

MESSAGE = f"{PASSAGES}\nwho?"
TEXTS = ["the cat sat", "the dog ran to the cat"]


class Empty:
    """A store that has nothing and remembers nothing but its calls."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def get(self, ids, texts):
        return [Miss(id, "absent") for id in ids]

    def keep(self, id, text, encoded, seconds):
        assert len(encoded.tokens) == encoded.keys.shape[2]
        self.kept.append(id)


def size(encoder: LocalEncoder, text: str) -> int:
    return len(encoder.decoder.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_prompt_fills_the_window_to_its_last_token(encoder):
    parts = ["<|start|>user\n", TEXTS[0], "\n\n", TEXTS[1], "\nwho?<|end|><|start|>assistant\n"]
    room = WINDOW - sum(size(encoder, part) for part in parts)
    reader = Reader(encoder, Empty())
    assert reader.prepare(MESSAGE, ["a", "b"], TEXTS, room).passages == 2
    assert reader.prepare(MESSAGE, ["a", "b"], TEXTS, room + 1).passages == 1
    alone = WINDOW - size(encoder, parts[0]) - size(encoder, parts[-1])  # with neither passage
    assert reader.prepare(MESSAGE, ["a", "b"], TEXTS, alone).passages == 0
    with pytest.raises(InputError, match="the question is too long"):
        reader.prepare(MESSAGE, ["a", "b"], TEXTS, alone + 1)


def test_blocks_stand_in_a_row_and_the_question_behind_them(encoder):
    prepared = Reader(encoder, Empty()).prepare(MESSAGE, ["a", "b"], TEXTS, 4)
    decode = encoder.decoder.tokenizer.decode
    assert [decode(list(block.encoded.tokens)) for block in prepared.blocks] == ["<|start|>user\n", TEXTS[0], "\n\n", TEXTS[1]]
    assert [block.start for block in prepared.blocks[1:]] == [block.end for block in prepared.blocks[:-1]]
    assert prepared.start == prepared.blocks[-1].end
    assert decode(list(prepared.question)) == "\nwho?<|end|><|start|>assistant\n"
    assert decode(prepared.tokens) == f"<|start|>user\n{TEXTS[0]}\n\n{TEXTS[1]}\nwho?<|end|><|start|>assistant\n"


def test_what_is_missed_is_kept_and_what_never_changes_is_encoded_once(encoder):
    store = Empty()
    reader, encoded = Reader(encoder, store), []
    inner = encoder.encode_tokens
    encoder.encode_tokens = lambda sequences: (encoded.extend(map(tuple, sequences)), inner(sequences))[1]
    first = reader.prepare(MESSAGE, ["a", "b"], TEXTS, 4)
    assert store.kept == ["a", "b"]
    assert first.reused == 0
    assert [miss.id for miss in first.misses] == ["a", "b"]
    before = len(encoded)
    reader.prepare(MESSAGE, ["a", "b"], TEXTS, 4)
    assert len(encoded) - before == 2  # the passages alone, and not the template's beginning or what stands between


def test_recomputing_all_of_it_changes_what_is_written_to_that_of_one_whole_text(encoder):
    def text(share: float) -> str:
        reader = Reader(encoder, Empty(), share)
        prepared = reader.prepare(MESSAGE, ["a", "b"], TEXTS, 8)
        return reader.answer(prepared, Writing(prepared.tokens, Sampling(8))).text

    from generators.models.stitched.stitch import read, stitch, write

    prepared = Reader(encoder, Empty()).prepare(MESSAGE, ["a", "b"], TEXTS, 8)
    whole = stitch(encoder.decoder, [])
    logits = read(encoder.decoder, whole, prepared.tokens, 0)
    expected = write(encoder.decoder, whole, logits[-1], len(prepared.tokens), Writing(prepared.tokens, Sampling(8))).text
    assert text(1.0) == expected
    assert text(0.0) != expected


def test_what_is_left_out_is_not_counted_as_reused(encoder):
    class Full(Empty):
        def get(self, ids, texts):
            return encoder.encode(texts)

    reader = Reader(encoder, Full())
    both = reader.prepare(MESSAGE, ["a", "b"], TEXTS, 1)
    assert both.reused == size(encoder, TEXTS[0]) + size(encoder, TEXTS[1])
    one = reader.prepare(MESSAGE, ["a", "b"], TEXTS, WINDOW - len(both.tokens) + 1)
    assert (one.passages, one.reused, one.misses) == (1, size(encoder, TEXTS[0]), ())
