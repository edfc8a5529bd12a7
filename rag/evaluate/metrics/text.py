"""What of an outcome is compared with the references, and by which language's rules."""

from __future__ import annotations

import re

from generators.citations import MARKER
from rag.evaluate.types import Outcome, Question

_MARKER = re.compile(rf"(?<!\s)\s*+{MARKER.pattern}")  # tried once per run of white space
_HAN = re.compile(r"[\u4e00-\u9fff]")
_LATIN_WORD = re.compile(r"[a-zA-Z]+")

_REFUSALS = (
    "i do not know",
    "i don't know",
    "i cannot answer",
    "i can not answer",
    "i can't answer",
    "i am unable to answer",
    "unanswerable",
    "not answerable",
    "insufficient information",
    "there is not enough information",
    "not enough information",
    "no answer",
    "我不知道",
    "不知道",
    "我无法回答",
    "无法回答",
    "信息不足",
    "文档信息不足",
    "没有答案",
)


def answer_text(outcome: Outcome) -> str:
    """The answer without citation markers, which are no part of it ("Paris [1]" answers "Paris"); a declared refusal gives "".

    Markers are only looked for where passages were shown: a pipeline without any cannot cite, and its "[1]" is its own.
    """
    if outcome.refused:
        return ""
    if outcome.citations or outcome.retrieved:
        return _MARKER.sub("", outcome.answer).strip()
    return outcome.answer.strip()


def refuses(outcome: Outcome) -> bool:
    """Whether the pipeline declined: it says so (``refused``), wrote nothing, or opens with a set phrase such as "I do not know"."""
    opening = answer_text(outcome).casefold().replace("’", "'").lstrip(" \n\t\"'“‘*([")
    return not opening or opening.startswith(_REFUSALS)


def is_chinese(question: Question) -> bool:
    """Whether Chinese rules apply: by the language in the metadata, else by script.

    By script, a text is Chinese if it holds at least as many Han characters as Latin words; asked of the question, and of the references
    where the question has neither (a bare number).
    """
    language = question.metadata.get("language")
    if isinstance(language, str) and language:
        return language.lower().replace("_", "-").split("-")[0] in ("zh", "chinese", "cmn")
    references = " ".join([*question.answers, *(alias for part in question.parts for alias in part)])
    for text in (question.question, references):
        han, words = len(_HAN.findall(text)), len(_LATIN_WORD.findall(text))
        if han or words:
            return han >= words
    return False
