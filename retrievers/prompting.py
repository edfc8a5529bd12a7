"""Foreign text on its way into a prompt: it must stay data.

A passage or a question may spell what a tokenizer takes for control ("<|im_start|>", "[INST]", "</s>"), what a method takes for a
marker of its own ("[Retrieval]", "<API>"), or what a reader of the reply takes for an identifier ("[3] > [1]"). `as_data` breaks all of
these on the way in. It never deletes visible text: a break is one space, or round brackets around a number.
"""

from __future__ import annotations

import re
from typing import Literal

from rag.core.errors import InputError

Language = Literal["auto", "en", "zh"]

_REFLECTION = (
    "No Retrieval|Retrieval|Continue to Use Evidence|Relevant|Irrelevant|Fully supported|Partially supported"
    r"|No support / Contradictory|Utility:\d"
)
# "<" before "|" (also the full-width forms some vocabularies use) or before a whole bare tag such as <s>, </tool_call>, <<SYS>>.
_ANGLE = re.compile(r"[<＜](?=[|｜]|[<＜]?/?[A-Za-z_][\w-]*[>＞])")
_ANGLE_END = re.compile(r"(?<=[|｜])(?=[>＞])")
_BRACKET = re.compile(rf"\[(?=/?[A-Z][A-Z_]+\]|[gs]MASK\]|(?:{_REFLECTION})\])")  # ChatGLM's masks begin with a small letter
_IDENTIFIER = re.compile(r"[\[［【]\s*(\d+(?:\s*[,;，、；–-]\s*\d+)*)\s*[\]］】]")
# Control characters, lone surrogates, bidirectional overrides, and the tag block that spells invisible ASCII.
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_WORD = re.compile(r"[^\W\d_\u3400-\u4dbf\u4e00-\u9fff]+")


def as_data(text: str) -> str:
    """Return ``text`` with nothing in it that a tokenizer, a chat template or a parser of replies takes for control.

    ``as_data(as_data(text)) == as_data(text)``. Invisible characters that carry hidden instructions or break an encoder go; whatever else
    can be seen stays.
    """
    text = _UNSEEN.sub("", text)
    text = _ANGLE.sub(lambda match: match[0] + " ", text)
    text = _ANGLE_END.sub(" ", text)
    text = _BRACKET.sub("[ ", text)
    return _IDENTIFIER.sub(r"(\1)", text)


def check_question(question: str) -> str:
    """Return ``question`` stripped; raises `InputError` if it is no text, blank, or cannot be encoded."""
    if not isinstance(question, str):
        raise InputError(f"the question must be text, not {type(question).__name__}")
    if not question.strip():
        raise InputError("the question is empty; give at least one word")
    try:
        question.encode()
    except UnicodeEncodeError as error:  # it would fail the whole batch of an encoder, and with it the questions of others
        raise InputError(f"the question holds a lone surrogate at character {error.start}; send valid Unicode text") from None
    return question.strip()


def language_of(text: str) -> Literal["en", "zh"]:
    """The language of the prompt that suits ``text``, by script: "zh" when it has more Chinese characters than words of other scripts."""
    if _KANA.search(text):
        return "en"
    return "zh" if len(_HAN.findall(text)) > len(_WORD.findall(text)) else "en"


def prompt_language(language: Language, question: str) -> Literal["en", "zh"]:
    """``language``, or that of ``question`` when it is "auto"."""
    return language_of(question) if language == "auto" else language


def check_language(language: str, where: str) -> None:
    """Raise `InputError` unless prompts exist in ``language``."""
    if language not in ("auto", "en", "zh"):
        raise InputError(f"{where}: language must be 'auto', 'en' or 'zh', not {language!r}")


def check_positive(value: int, name: str, where: str) -> None:
    """Raise `InputError` unless ``value`` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{where}: {name} must be an integer of at least 1, not {value!r}")
