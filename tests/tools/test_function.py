from __future__ import annotations

import threading
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from rag.core.errors import InputError
from rag.core.sync import run_sync
from tools.function import FunctionTool, function_tool
from tools.tool import Tool, call_tool


class Place(BaseModel):
    x: float
    y: float = 0.0


def call(tool: Tool, **arguments: Any) -> str:
    result = run_sync(call_tool(tool, arguments))
    return result.text or result.error


def test_the_signature_is_the_schema_and_the_docstring_the_description() -> None:
    @function_tool
    def weather(city: str, days: int = 1, unit: Literal["C", "F"] = "C") -> str:
        """Tells the weather."""
        return f"{city} {days} {unit}"

    assert (weather.name, weather.description) == ("weather", "Tells the weather.")
    assert weather.schema["required"] == ["city"]
    assert weather.schema["properties"]["days"]["type"] == "integer"
    assert isinstance(weather, Tool)
    assert call(weather, city="Oslo", unit="F") == "Oslo 1 F"
    assert "'K' is not one of" in call(weather, city="Oslo", unit="K")


def test_a_plain_function_runs_in_a_thread_and_a_coroutine_on_the_loop() -> None:
    async def here() -> str:
        return threading.current_thread().name

    def elsewhere() -> str:
        return threading.current_thread().name

    assert call(FunctionTool(here)) != call(FunctionTool(elsewhere))


def test_arguments_become_the_types_of_the_parameters_and_results_text() -> None:
    def far(place: Place, names: list[str]) -> dict[str, Any]:
        return {"x": place.x + 1, "names": names, "é": None}

    assert call(FunctionTool(far), place={"x": 1}, names=["a"]) == '{"x":2.0,"names":["a"],"é":null}'
    assert "place.x" in call(FunctionTool(far), place={"x": "one"}, names=[])


def test_an_object_that_can_be_called_is_a_tool_under_its_class_name() -> None:
    class Doubler:
        def __call__(self, n: int) -> int:
            return 2 * n

    assert call(FunctionTool(Doubler()), n=4) == "8"
    assert FunctionTool(Doubler()).name == "Doubler"


def untyped(a) -> str:  # type: ignore[no-untyped-def]
    return str(a)


def many(*a: int) -> str:
    return str(a)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (untyped, "parameter 'a' has no type"),
        (many, "plain or keyword-only"),
        (lambda: "x", "cannot be the name of a tool"),
        ("print", "takes a function"),
    ],
)
def test_what_has_no_schema_is_refused(fn: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FunctionTool(fn)
