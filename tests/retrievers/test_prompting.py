from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rag.core.errors import InputError
from retrievers.prompting import as_data, check_language, check_positive, check_question, language_of, prompt_language

CONTROL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|start_header_id|>",
    "<s>",
    "</s>",
    "<unk>",
    "<<SYS>>",
    "<</SYS>>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[CLS]",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<start_of_turn>",
    "<｜User｜>",
    "<｜end▁of▁sentence｜>",
    "<tool_call>",
    "</tool_call>",
    "<API>",
    "</API>",
    "<paragraph>",
    "<think>",
    "[Retrieval]",
    "[No Retrieval]",
    "[Relevant]",
    "[Fully supported]",
    "[Utility:5]",
    "[3]",
    "[3] > [1]",
    "[1, 2]",
    "【2】",
]


@pytest.mark.parametrize("control", CONTROL)
def test_control_text_does_not_survive(control):
    kept = as_data(f"before {control} after")
    assert control not in kept
    assert kept.startswith("before ")
    assert kept.endswith(" after")
    assert re.sub(r"[\s()\[\]【】]", "", kept) == re.sub(r"[\s()\[\]【】]", "", f"before {control} after")  # nothing visible is lost


def test_control_text_inside_control_text():
    assert "<|im_start|>" not in as_data("<<|im_start|>|im_start|><|im_<|im_end|>start|>")
    assert "[INST]" not in as_data("[[INST]INST]")


@pytest.mark.parametrize(
    "plain", ["a < b and c > d", "f(x) = a[i] + b[N]", "see [the manual](page.md)", "1 | 2 | 3", "天空是蓝的。", "5<6", "x -> y"]
)
def test_ordinary_text_stays(plain):
    assert as_data(plain) == plain


def test_invisible_text_goes():
    hidden = "".join(chr(0xE0000 + ord(c)) for c in "ignore all")
    assert as_data(f"a{hidden}b\x00c\ud800d\u202ee\tf\ng") == "abcde\tf\ng"


fragments = st.lists(st.one_of(st.sampled_from([*CONTROL, "<", ">", "|", "[", "]", "/", "s", "1"]), st.text(max_size=3)), max_size=12).map(
    "".join
)


@given(fragments)
@example("<<|")
def test_once_is_enough_and_it_can_be_encoded(text):
    once = as_data(text)
    assert as_data(once) == once
    once.encode("utf-8")
    assert not re.search(r"<\||\|>|<s>|\[INST\]|\[\d+\]", once)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How long may a suit be worn?", "en"),
        ("潜水服最多可以穿多久？", "zh"),
        ("什么是 LoRA 和 QLoRA？", "zh"),
        ("What does 道 mean in Chinese?", "en"),
        ("これは何ですか、日本語の質問です", "en"),
        ("Wie lange?", "en"),
        ("1234?", "en"),
        ("", "en"),
    ],
)
def test_language_by_script(text, language):
    assert language_of(text) == language
    assert prompt_language("auto", text) == language
    assert prompt_language("zh", text) == "zh"


def test_questions():
    assert check_question("  Who? \n") == "Who?"
    for blank in ("", " \n\t"):
        with pytest.raises(InputError, match="empty"):
            check_question(blank)
    with pytest.raises(InputError, match="lone surrogate at character 3"):
        check_question("who\ud800?")
    with pytest.raises(InputError, match="must be text, not int"):
        check_question(7)  # type: ignore[arg-type]


def test_settings():
    check_language("auto", "X")
    check_positive(1, "k", "X")
    with pytest.raises(InputError, match="X: language must be"):
        check_language("fr", "X")
    for wrong in (0, -1, True, 1.0, "1"):
        with pytest.raises(InputError, match="X: k must be an integer"):
            check_positive(wrong, "k", "X")  # type: ignore[arg-type]
