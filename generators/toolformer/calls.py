"""A call as it stands in a text, " [Name(input) -> result]": writing it, reading what the model wrote, and keeping results harmless."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rag.core.errors import GraftError, InputError
from rag.core.protocols import LanguageModel
from rag.core.types import Token
from retrievers.prompting import as_data
from tools.tool import Tool, ToolResult, call_tool, shown

_CALL = re.compile(r"\s*([^\W\d]\w*)\s*\(([^\[\]\n]*)\)\s*")
_PART = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[^,"']|["'])+)\s*(?:,|$)""")
_NAMED = re.compile(r"\s*([^\W\d]\w*)\s*=\s*(.*)", re.DOTALL)
_BRACKETS = str.maketrans("[]", "()")


@dataclass(frozen=True, slots=True)
class Call:
    """A call c = (name, input) of section 2."""

    name: str
    input: str

    def __str__(self) -> str:
        return f"{self.name}({self.input})"


def parse_call(written: str) -> Call | None:
    """The call that ``written`` is, such as "Calculator(400 / 1400)"; None if it is none. An input holds no bracket and no line break."""
    match = _CALL.fullmatch(written)
    return Call(match[1], as_data(match[2]).strip()) if match else None


def example_call(tool: Tool) -> Call:
    """A call to show: with the first "examples" of the tool's schema, else with the names of its arguments."""
    examples = tool.schema.get("examples") or ()
    arguments = examples[0] if examples and isinstance(examples[0], Mapping) else None
    if arguments is None:
        return Call(tool.name, ", ".join(tool.schema.get("properties", {})))
    return Call(tool.name, inline(", ".join(shown({"": value}) for value in arguments.values())))


def inline(result: str) -> str:
    """``result`` as one line that can neither end its call nor spell another one: no brackets, no markers of control."""
    return " ".join(as_data(result).translate(_BRACKETS).split())


def opens_call(text: str) -> bool:
    """Whether a token of this text begins a call: "[" or " [" with or without more behind it."""
    return text.lstrip().startswith("[")


def first_opening(tokens: tuple[Token, ...], k: int, least: float = 0.0) -> tuple[int, int, float] | None:
    """Where <API> is first among the ``k`` most likely tokens, with a probability of at least ``least``; None if nowhere.

    (index of the token, rank from 1, probability).
    """
    for index, token in enumerate(tokens):
        for rank, (_, text, logprob) in enumerate(token.top[:k], start=1):
            if opens_call(text) and math.exp(logprob) >= least:
                return index, rank, math.exp(logprob)
    return None


async def opening_ids(model: LanguageModel) -> list[int]:
    """The tokens that stand for <API>: the model's " [" and "[" (section 3 writes it so, to leave the vocabulary alone)."""
    return sorted({(await model.aencode(" ["))[-1], (await model.aencode("["))[-1]})


async def execute(call: Call, tools: Mapping[str, Tool], timeout: float) -> ToolResult:
    """What the tool that ``call`` names gives for its input within ``timeout`` seconds; never raises for what it asks or does."""
    if call.name not in tools:
        return ToolResult(error=f"there is no such tool; tools are: {', '.join(tools)}")
    try:
        arguments = arguments_of(tools[call.name], call.input)
    except GraftError as error:
        return ToolResult(error=str(error))
    return await call_tool(tools[call.name], arguments, timeout=timeout)


def arguments_of(tool: Tool, text: str) -> dict[str, Any]:
    """``text`` between the parentheses as the arguments of ``tool``.

    All of it belongs to the only argument, or to the only required one; several are divided by commas, in the order of the schema or as
    ``name=value``. Values are read as the schema says. Raises `InputError` if there are more values than arguments.
    """
    properties: Mapping[str, Any] = tool.schema.get("properties", {})
    if not text:
        return {}
    parts = [match[1].strip() for match in _PART.finditer(text)]
    named = [match for part in parts if (match := _NAMED.fullmatch(part)) and match[1] in properties]
    if len(named) == len(parts):
        return {match[1]: _value(match[2], properties[match[1]]) for match in named}
    required = tool.schema.get("required") or list(properties)
    if len(required) == 1:
        return {required[0]: _value(text, properties.get(required[0], {}))}
    if len(parts) > len(properties):
        raise InputError(f"{tool.name} takes {', '.join(properties) or 'no input'}, not {len(parts)} values")
    return {name: _value(part, properties[name]) for name, part in zip(properties, parts, strict=False)}


def _value(text: str, schema: Any) -> Any:
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
    forms = [schema, *schema.get("anyOf", ())] if isinstance(schema, Mapping) else []
    kinds = {form["type"] for form in forms if isinstance(form, Mapping) and isinstance(form.get("type"), str)}
    if not kinds or "string" in kinds:
        return text
    try:
        return json.loads(text.lower() if text in ("True", "False") else text, parse_constant=lambda name: name)
    except (ValueError, RecursionError):
        return text  # the check of the arguments says what it should have been
