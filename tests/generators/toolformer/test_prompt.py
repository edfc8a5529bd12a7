from __future__ import annotations

import re
from importlib.resources import files

import pytest

import generators.prompts
from generators.toolformer.annotated import example_pair
from generators.toolformer.calls import arguments_of, parse_call
from generators.toolformer.prompt import examples, toolformer_prompt
from rag.core.pipeline import Pipeline
from rag.core.sync import run_sync
from retrievers.prompting import language_of
from tests.generators.conftest import ScriptedModel, ScriptedRetriever
from tools.arguments import check_arguments
from tools.ask import AskPipeline
from tools.calculator import Calculator
from tools.calendar import Calendar
from tools.function import FunctionTool
from tools.search import CorpusSearch
from tools.tool import Tool
from tools.translate import Translate

TOOLS = [Calculator(), Calendar(), CorpusSearch(ScriptedRetriever([])), AskPipeline(Pipeline()), Translate(ScriptedModel())]
SPAN = re.compile(r"\[(.+?) -> ([^\]]+)\]")


def named(tool: Tool) -> str:
    return tool.name


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("tool", TOOLS, ids=named)
def test_each_tool_has_examples_whose_calls_it_would_take(tool: Tool, language: str) -> None:
    pairs = examples(tool, language)
    assert len(pairs) == 2
    for question, answer in pairs:
        assert language_of(question) == language
        spans = SPAN.findall(answer)
        assert len(spans) == 1
        call = parse_call(spans[0][0])
        assert call is not None
        assert call.name == tool.name
        check_arguments(tool.schema, arguments_of(tool, call.input), tool.name)
        assert "[" not in example_pair(answer)[0]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_results_of_the_sums_are_right(language: str) -> None:
    for _, answer in examples(Calculator(), language):
        expression, result = SPAN.findall(answer)[0]
        assert run_sync(Calculator().acall({"expression": expression.removeprefix("Calculator(").removesuffix(")")})) == result


def test_every_template_exists_in_both_languages_with_the_same_fields() -> None:
    folder = files(generators.prompts).joinpath("toolformer")
    templates = {file.name: set(re.findall(r"\{([a-z_]+)\}", file.read_text(encoding="utf-8"))) for file in folder.iterdir()}
    names = {name.split(".")[0] for name in templates}
    assert {"system", "annotate", "pair"} <= names
    for name in names:
        assert templates[f"{name}.en.txt"] == templates[f"{name}.zh.txt"]


def test_a_tool_without_a_file_of_its_name_is_listed_and_has_no_example() -> None:
    def tide(harbour: str) -> str:
        """Tells the
        tide."""
        return harbour

    prompt = toolformer_prompt("When?", [FunctionTool(tide)], "en")
    assert [turn.role for turn in prompt] == ["system", "user"]
    assert prompt[0].content.endswith("- tide(harbour): Tells the tide.")


def test_a_name_reads_no_template_that_is_none_of_a_tool() -> None:
    for name in ("system", "annotate", "pair", "cited"):
        assert examples(FunctionTool(lambda: "", name=name), "en") == []
    assert examples(FunctionTool(lambda: "", name="标题"), "zh") == []
