from __future__ import annotations

import copy

import pytest

from generators.models.stitched.prompt import PASSAGES, around_passages
from rag.core.errors import InputError

MESSAGE = f"{PASSAGES}\n\nWho keeps the lamp?"


def test_both_sides_make_the_whole_template(one):
    before, behind = around_passages(one, MESSAGE)
    text = one.tokenizer.decode(before) + "the cat" + one.tokenizer.decode(behind)
    assert text == "<|start|>user\nthe cat\n\nWho keeps the lamp?<|end|><|start|>assistant\n"


def test_a_model_without_a_template_reads_text_and_its_beginning_token_once(one):
    one.tokenizer = copy.deepcopy(one.tokenizer)
    one.tokenizer.chat_template = None
    before, behind = around_passages(one, MESSAGE)
    assert before == []
    assert one.tokenizer.decode(behind) == "\n\nWho keeps the lamp?"
    one.tokenizer.add_bos_token = True
    before, behind = around_passages(one, "Read: " + MESSAGE)
    assert one.tokenizer.bos_token_id not in behind


def test_a_question_that_spells_the_mark_stays_in_the_question(one):
    before, behind = around_passages(one, f"{MESSAGE} {PASSAGES}")
    assert one.tokenizer.decode(before) == "<|start|>user\n"
    assert PASSAGES in one.tokenizer.decode(behind)


def test_a_message_without_a_place_for_passages_is_an_error(one):
    with pytest.raises(InputError, match="no place"):
        around_passages(one, "Who keeps the lamp?")
