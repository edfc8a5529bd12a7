"""What an untrained model is told about its tools: a list, and questions answered with calls."""

from __future__ import annotations

from collections.abc import Iterable

from generators.prompts import render
from generators.toolformer.calls import example_call
from rag.core.errors import ConfigError
from rag.core.types import Message
from retrievers.prompting import as_data
from tools.tool import Tool

_LONGEST_DESCRIPTION = 300


def toolformer_prompt(question: str, tools: Iterable[Tool], language: str) -> list[Message]:
    """The tools as the system's turn, examples of each as turns, and last the question."""
    tools = list(tools)
    listed = "\n".join(f"- {example_call(tool)}: {description(tool)}" for tool in tools)
    turns = [Message("system", render("toolformer/system", language, tools=listed))]
    for tool in tools:
        for asked, answered in examples(tool, language):
            turns += [Message("user", asked), Message("assistant", answered)]
    return [*turns, Message("user", as_data(question))]


def examples(tool: Tool, language: str) -> list[tuple[str, str]]:
    """Questions and answers with calls in them, from the file that bears the tool's name; none for a tool that has no file."""
    try:
        text = render(f"toolformer/{tool.name.lower()}", language)
    except ConfigError:
        return []
    pairs = (block.split("\n", 1) for block in text.strip().split("\n\n"))
    return [(question, answer) for question, answer in pairs]


def description(tool: Tool) -> str:
    """What the tool says of itself, which may be foreign text (a server's): one line of at most 300 characters."""
    return " ".join(as_data(tool.description).split())[:_LONGEST_DESCRIPTION]
