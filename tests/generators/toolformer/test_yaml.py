from __future__ import annotations

from pathlib import Path

import pytest

from generators.toolformer.annotate import Annotate
from generators.toolformer.toolformer import Toolformer
from rag.core.errors import ConfigError
from rag.core.pipeline import Pipeline
from rag.core.registry import component
from rag.core.trace import TextDelta, ToolCalled
from tests.generators.toolformer.conftest import PathModel
from tools.ask import AskPipeline
from tools.calculator import Calculator
from tools.calendar import Calendar
from tools.search import CorpusSearch
from tools.translate import Translate

EXAMPLE = Path(__file__).parents[3] / "examples" / "pipelines" / "toolformer.yaml"


@component
class SumModel(PathModel):
    """Writes one sum; takes no argument, so that YAML can name it."""

    def __init__(self) -> None:
        super().__init__(paths=("It is 36.", "It is [Calculator(27 + 4 * 2) -> 35] 35."))


NESTED = """
nodes:
  answer:
    type: Toolformer
    model: {type: SumModel}
    tools:
      - {type: Calculator}
      - {type: Calendar, today: "2023-01-30"}
      - {type: Translate, model: {type: SumModel}, to: Chinese}
      - {type: AskPipeline, pipeline: other.yaml}
    k: 5
"""


def test_the_example_builds_and_is_read_back() -> None:
    pipeline = Pipeline.from_yaml(EXAMPLE)
    answer = pipeline.nodes["answer"].component
    assert [type(tool) for tool in answer.tools] == [Calculator, Calendar, CorpusSearch]
    assert Pipeline.from_yaml(pipeline.to_yaml()).to_yaml() == pipeline.to_yaml()


def test_a_pipeline_with_tools_runs_and_streams() -> None:
    pipeline = Pipeline.from_yaml(NESTED)
    assert Pipeline.from_yaml(pipeline.to_yaml()).to_yaml() == pipeline.to_yaml()
    assert [type(tool) for tool in pipeline.nodes["answer"].component.tools] == [Calculator, Calendar, Translate, AskPipeline]
    *events, run = pipeline.stream("What is 27 + 4 * 2?")
    assert run.value.text == "It is 35."
    told = [event for event in events if isinstance(event, (TextDelta, ToolCalled))]
    assert told == [TextDelta("It is"), ToolCalled("Calculator", "27 + 4 * 2", "35"), TextDelta(" 35.")]
    assert run.trace.total("tool_calls") == 1


def test_annotation_is_a_node() -> None:
    assert isinstance(Pipeline().add("annotate", Annotate(PathModel(), Calculator())).nodes["annotate"].component, Annotate)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("[]", "at least one tool"),
        ("[Calculator]", "is no tool"),
        ("{type: Calculator}", "as a list"),
        ("[{type: BM26}]", "no component 'BM26'"),
    ],
)
def test_what_is_no_list_of_tools_is_refused(tools: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline.from_yaml(f"nodes: {{answer: {{type: {Toolformer.__name__}, model: {{type: SumModel}}, tools: {tools}}}}}")
