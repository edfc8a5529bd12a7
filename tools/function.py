"""Any typed Python function, as a tool."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import to_json

from rag.core.errors import InputError


class FunctionTool:
    """``fn``, plain (it runs in a worker thread) or a coroutine, under its own name; its docstring is the description.

    The schema comes from the signature, so every parameter needs a type. A result that is no text becomes JSON. Raises `InputError` for a
    function without a name, with untyped parameters, or with ``*args``.
    """

    def __init__(self, fn: Callable[..., Any], name: str | None = None, description: str | None = None) -> None:
        if not callable(fn):
            raise InputError(f"FunctionTool takes a function, not {fn!r}")
        self.fn = fn
        self.name = str(name or getattr(fn, "__name__", type(fn).__name__))
        self.description: str = description or inspect.getdoc(fn) or ""
        self._model = _arguments_of(fn, self.name)
        self.schema: Mapping[str, Any] = self._model.model_json_schema()

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        """The result of the function for ``arguments``, which are converted to the types of its parameters."""
        try:
            typed = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            raise InputError(f"{self.name}: {wrong}") from None
        given = {name: getattr(typed, name) for name in typed.model_fields_set}
        if inspect.iscoroutinefunction(self.fn):
            result = await self.fn(**given)
        else:
            result = await asyncio.to_thread(self.fn, **given)
        return result if isinstance(result, str) else to_json(result, fallback=str).decode()


def function_tool(fn: Callable[..., Any]) -> FunctionTool:
    """Make ``fn`` a tool; for use as a decorator."""
    return FunctionTool(fn)


def _arguments_of(fn: Callable[..., Any], name: str) -> type[BaseModel]:
    if not name.isidentifier():
        raise InputError(f"{name!r} cannot be the name of a tool; give FunctionTool(fn, name='…')")
    try:
        hints = get_type_hints(fn if inspect.isroutine(fn) else type(fn).__call__)
    except NameError as error:
        raise InputError(f"{name}: its annotations cannot be resolved ({error}); import their types at run time") from None
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise InputError(f"{name}: parameter '{parameter}' must be a plain or keyword-only parameter")
        if parameter.name not in hints:
            raise InputError(f"{name}: parameter '{parameter.name}' has no type; annotate it")
        fields[parameter.name] = (hints[parameter.name], ... if parameter.default is parameter.empty else parameter.default)
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except Exception as error:  # pydantic has many ways of refusing a type
        raise InputError(f"{name}: no schema can be made of its parameters ({error})") from error
