from __future__ import annotations

import copy

import pytest

from generators.models.stitched.prompt import PASSAGES, around_passages, whole_prompt
from rag.core.errors import InputError, MissingCapability

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


TEXTS = ["the cat.", " the dog ran", "北京"]


@pytest.mark.parametrize("template", [True, False])
def test_a_whole_prompt_has_the_tokens_of_its_text_cut_at_its_borders(one, template):
    one.tokenizer = copy.deepcopy(one.tokenizer)
    if not template:
        one.tokenizer.chat_template = None
    blocks, question = whole_prompt(one, MESSAGE, TEXTS)
    text = "\n\n".join(TEXTS) + "\n\nWho keeps the lamp?"
    whole = f"<|start|>user\n{text}<|end|><|start|>assistant\n" if template else text
    assert [*(token for block in blocks for token in block), *question] == one.tokenizer(whole)["input_ids"]
    decode = one.tokenizer.decode
    assert [decode(list(block)) for block in blocks] == ["<|start|>user\n" * template, "the cat.", "\n\n the dog ran", "\n\n北京"]
    assert decode(question).startswith("\n\nWho keeps")


def test_a_token_over_a_border_belongs_to_what_stands_behind_it(one):
    """As ".\\n\\n" is one token to many models."""
    blocks, question = whole_prompt(one, f"{PASSAGES}e mat", ["on th", "on th"])
    the = one.tokenizer("the", add_special_tokens=False)["input_ids"]
    decode = one.tokenizer.decode
    assert len(the) == 1
    assert decode([*blocks[-1], *question]) == "\n\non the mat<|end|><|start|>assistant\n"
    assert decode(list(blocks[1])) == "on th"
    assert decode(list(blocks[2])) != "\n\non th"
    assert question[0] in one.tokenizer("on the mat", add_special_tokens=False)["input_ids"]


def test_what_a_tokenizer_puts_around_a_text_stands_at_its_ends(one):
    from tokenizers.processors import TemplateProcessing

    one.tokenizer = copy.deepcopy(one.tokenizer)
    one.tokenizer.chat_template = None
    ends = [(token, one.tokenizer.convert_tokens_to_ids(token)) for token in ("<|start|>", "<|end|>")]
    one.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|start|> $A <|end|>", special_tokens=ends)
    blocks, question = whole_prompt(one, MESSAGE, TEXTS[:1])
    assert [one.tokenizer.decode(list(block)) for block in blocks] == ["<|start|>", "the cat."]
    assert one.tokenizer.decode(question) == "\n\nWho keeps the lamp?<|end|>"


def test_a_tokenizer_that_tells_no_places_is_refused(one):
    class Slow:
        chat_template = ""

    one.tokenizer = Slow()
    with pytest.raises(MissingCapability, match=r"tokenizer\.json"):
        whole_prompt(one, MESSAGE, TEXTS)
