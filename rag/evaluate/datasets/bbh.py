"""BIG-Bench Hard (Suzgun et al., 2022): 27 tasks on which models fell behind people; one file per task."""

from __future__ import annotations

from pathlib import Path

from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question


def _recognises(source: Source) -> bool:
    if source.is_zip():
        return False
    if source.is_folder():
        files = _tasks(source.path)
        return bool(files) and not any(path.is_dir() for path in source.path.iterdir()) and _is_task(Source(files[0]))
    return _is_task(source)


def _is_task(source: Source) -> bool:
    examples = source.first().get("examples")
    return isinstance(examples, list) and bool(examples) and isinstance(examples[0], dict) and {"input", "target"} <= examples[0].keys()


@data_format(
    "bbh",
    what="BIG-Bench Hard: one of 27 reasoning tasks, or all of a folder; no passages",
    files="one task's JSON, such as date_understanding.json, or the folder of tasks",
    fields="examples: [{input, target}]",
    licence="MIT",
    metrics=("final_answer",),
    recognises=_recognises,
)
def read_bbh(source: Source) -> Draft:
    """``kind`` is the task; a question's id is the task and its number, from 1."""
    tasks = [Source(path) for path in _tasks(source.path)] if source.is_folder() else [source]
    questions = []
    for task in tasks:
        task.expect("bbh", "examples: [{input, target}]")
        for n, example in enumerate(task.top().records("examples"), start=1):
            questions.append(Question(f"{task.name}-{n}", example.filled("input"), example.texts("target"), kind=task.name))
    return Draft(questions, language="en")


def _tasks(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))
