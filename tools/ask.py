"""Question answering by a second pipeline, as a tool (the QA system of Schick et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rag.core.errors import InputError, RunError
from rag.core.pipeline import Pipeline
from rag.core.registry import component
from rag.core.trace import listener
from rag.core.types import Answer
from tools.tool import cite

DEEPEST = 3
"""Pipelines that may ask each other: one whose tool is itself would never end."""

_depth: ContextVar[int] = ContextVar("graft_ask_depth", default=0)


@runtime_checkable
class Answering(Protocol):
    """What can be asked: a `Pipeline`, or anything else with this coroutine."""

    async def arun(self, question: str) -> Any:
        """The answer to ``question``."""
        ...


@component
class AskPipeline:
    """Asks ``pipeline`` (a built one, or the path of its YAML file, read on first use) and gives its answer as text.

    The second pipeline's trace becomes a part of the caller's, and the sources of its `Answer` become sources of the caller's answer.
    """

    name = "QA"
    description = "answers a question about facts"
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {"question": {"type": "string"}},
        "required": ["question"],
        "examples": [{"question": "When was the north lighthouse built?"}],
    }

    def __init__(self, pipeline: Answering | str) -> None:
        if not isinstance(pipeline, (str, Path, Answering)):
            raise InputError(f"AskPipeline: pipeline is a Pipeline or the path of its YAML file, not {pipeline!r}")
        self.pipeline = pipeline
        self._built = None if isinstance(pipeline, (str, Path)) else pipeline

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        """The answer to ``arguments["question"]``."""
        question = arguments["question"].strip()
        if not question:
            raise InputError("the question is empty; give at least one word")
        if _depth.get() >= DEEPEST:
            raise RunError(f"pipelines ask each other more than {DEEPEST} deep; take AskPipeline out of the one that is asked")
        token = _depth.set(_depth.get() + 1)
        try:
            with listener(None):  # its nodes and its text are not those of the pipeline that someone listens to
                answer = await self._asked(question)
        finally:
            _depth.reset(token)
        if isinstance(answer, Answer):
            cite(answer.sources)
            return answer.text
        return str(answer)

    async def _asked(self, question: str) -> Any:
        if self._built is None:
            self._built = Pipeline.from_yaml(Path(str(self.pipeline)))
        return await self._built.arun(question)
