"""Asks a pipeline the questions of a data set, many in flight, and keeps every answer the moment it is there."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Sequence
from contextlib import aclosing, closing
from functools import partial
from pathlib import Path
from typing import Any, cast

from rag.core.engine import Run
from rag.core.pipeline import Pipeline
from rag.core.sync import run_sync
from rag.core.trace import Span, TextDelta, listener
from rag.core.types import Answer, Hit
from rag.evaluate.identity import data_key, pipeline_key
from rag.evaluate.store import RunFolder
from rag.evaluate.types import DataSet, Outcome, Question

Progress = Callable[[int, int, int], object]
"""Called with (finished, failed, all) as questions finish; those of earlier sessions are counted in."""


def evaluate(
    pipeline: Pipeline,
    data: DataSet,
    *,
    folder: str | Path,
    name: str,
    in_flight: int = 64,
    retry_failed: bool = False,
    first_token: bool = False,
    on_progress: Progress | None = None,
) -> list[Outcome]:
    """Ask every question of ``data`` that the run ``name`` in ``folder`` has not asked yet; return all outcomes in the order of the data.

    A question that fails is kept with its error; ``retry_failed`` asks those again. ``first_token`` measures the time to the first piece
    of an answer, which makes the models stream. A stopped run goes on with the same call. Raises `InputError` if ``folder`` belongs to
    something else, or if the pipeline cannot take a question, and what `rag.evaluate.identity.pipeline_key` raises.
    """
    return run_sync(
        aevaluate(
            pipeline,
            data,
            folder=folder,
            name=name,
            in_flight=in_flight,
            retry_failed=retry_failed,
            first_token=first_token,
            on_progress=on_progress,
        )
    )


async def aevaluate(
    pipeline: Pipeline,
    data: DataSet,
    *,
    folder: str | Path,
    name: str,
    in_flight: int = 64,
    retry_failed: bool = False,
    first_token: bool = False,
    on_progress: Progress | None = None,
) -> list[Outcome]:
    """`evaluate`, as a coroutine."""
    with await asyncio.to_thread(claim, pipeline, data, folder=folder, name=name, first_token=first_token) as store:
        done = store.outcomes(name)
        todo = [q for q in data.questions if q.id not in done or (retry_failed and done[q.id].error)]
        failed = sum(bool(outcome.error) for outcome in done.values())
        report = on_progress or (lambda finished, failed, total: None)
        report(len(done) - sum(q.id in done for q in todo), failed, len(data.questions))
        left = len(todo)
        started = time.perf_counter()
        try:
            with closing(_Asked(todo, first_token)) as asked:
                async with aclosing(cast(AsyncGenerator[Run, None], pipeline.amap(asked, in_flight=in_flight))) as runs:
                    async for run in runs:
                        outcome = outcome_of(todo[run.index], run, asked.first.get(run.index))
                        store.add(name, outcome)
                        left -= 1
                        failed += bool(outcome.error) - bool(outcome.question in done and done[outcome.question].error)
                        done[outcome.question] = outcome
                        report(len(data.questions) - left, failed, len(data.questions))
        finally:
            if left < len(todo):
                store.add_time(name, len(todo) - left, time.perf_counter() - started)
    return [done[question.id] for question in data.questions]


def claim(pipeline: Pipeline, data: DataSet, *, folder: str | Path, name: str, first_token: bool = False) -> RunFolder:
    """Open ``folder`` for this run, before anything is asked. Raises as `evaluate` does."""
    key = {**pipeline_key(pipeline), "first_token": first_token}
    selection = data_key(data)
    pipeline.plan.bind(data.questions[0].question, {})
    store = RunFolder(folder)
    try:
        store.claim_data(selection)
        store.claim_run(name, key)
    except BaseException:
        store.close()
        raise
    return store


def outcome_of(question: Question, run: Run, first: float | None = None) -> Outcome:
    """What is kept of ``run``. ``first`` is when its first piece of text came, on the clock of the trace."""
    trace = run.trace
    common: dict[str, Any] = {
        "counts": dict(_totals(trace)),
        "seconds": trace.seconds,
        "first_token": None if first is None else first - trace.started,
        "trace": trace.to_dict(),
    }
    if run.error is not None:
        return Outcome(question.id, error=f"{type(run.error).__name__}: {run.error}", **common)
    value = run.result
    if isinstance(value, Answer):
        citations = tuple((citation.passage.id, citation.valid) for citation in value.citations)
        retrieved = _ids(value.sources, question)
        return Outcome(question.id, value.text, value.refused, citations, retrieved, **common)
    if isinstance(value, str):
        return Outcome(question.id, value, **common)
    if isinstance(value, list) and all(isinstance(hit, Hit) for hit in value):
        return Outcome(question.id, retrieved=_ids(value, question), **common)
    kinds = f"a dict of {', '.join(value)}" if isinstance(value, dict) else type(value).__name__
    return Outcome(question.id, error=f"the pipeline ended in {kinds}; an answer, text or a list of hits can be evaluated", **common)


def _ids(hits: Iterable[Hit], question: Question) -> tuple[str, ...]:
    """The passages' ids in order; their documents' ids, each once, where it is documents that the gold of ``question`` names."""
    passages = [hit.passage for hit in hits]
    if any(p.document in question.gold for p in passages) and not any(p.id in question.gold for p in passages):
        return tuple(dict.fromkeys(p.document for p in passages))
    return tuple(p.id for p in passages)


class _Asked:
    """The questions' texts, handed out as the pipeline takes them; ``first`` collects when each one's first piece of text came."""

    def __init__(self, questions: Sequence[Question], listen: bool) -> None:
        self.first: dict[int, float] = {}
        self._listen = listen
        self._items = self._hand_out(questions)

    def __iter__(self) -> Generator[str, None, None]:
        return self._items

    def close(self) -> None:
        """Let the listener of the last question go, in the context that set it."""
        self._items.close()

    def _hand_out(self, questions: Sequence[Question]) -> Generator[str, None, None]:
        for index, question in enumerate(questions):
            if not self._listen:
                yield question.question
                continue
            with listener(partial(self._hear, index)):
                yield question.question  # the run starts here, so its context has this listener and no other run's

    def _hear(self, index: int, event: object) -> None:
        if isinstance(event, TextDelta) and event.text:
            self.first.setdefault(index, time.perf_counter())


def _totals(span: Span) -> Counter[str]:
    total: Counter[str] = Counter(span.counts)
    for child in span.children:
        total.update(_totals(child))
    return total
