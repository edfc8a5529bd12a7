"""Following a compiled plan. One engine: `drive` runs it without an event loop when every node is a plain function."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rag.core.errors import GraftError, InputError, LoopLimit, NodeError, NodeTimeout, RunError
from rag.core.plan import SKIPPED, Loop, Plan, Step
from rag.core.ports import Branch
from rag.core.trace import NodeFinished, NodeStarted, Span, current_span, emit, listener, listening, undertone

T = TypeVar("T")
_UNSET: Any = object()
Bound = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a pipeline: its value or its error, and the trace. ``index`` is the question's place in a `Pipeline.map`."""

    index: int
    trace: Span
    error: GraftError | None = None
    result: Any = None

    @property
    def ok(self) -> bool:
        """Whether the run ended with a value."""
        return self.error is None

    @property
    def value(self) -> Any:
        """The result. Raises the run's error if it failed."""
        if self.error is not None:
            raise self.error
        return self.result


async def execute(plan: Plan, bound: Bound, *, inline: bool = False, index: int = 0) -> Run:
    """Follow ``plan`` once. A failure is held by the `Run`; cancellation passes through. The trace hangs below the span that is open."""
    root = Span("pipeline", started=time.perf_counter())
    around = current_span.get()
    if around is not None:  # whoever opened it sees this run even if it is cancelled and no `Run` comes back
        around.children.append(root)
    token = current_span.set(root)
    try:
        slots = await follow(plan, bound, inline)
        return Run(index, root, None, _result(plan, slots))
    except GraftError as error:
        root.error = f"{type(error).__name__}: {error}"
        return Run(index, root, error)
    finally:
        current_span.reset(token)
        root.seconds = time.perf_counter() - root.started


async def execute_many(plan: Plan, questions: Iterable[Any], in_flight: int) -> AsyncIterator[Run]:
    """Follow ``plan`` for each question, ``in_flight`` at a time; yield runs as they finish. Leaving early cancels the rest."""
    tasks: set[asyncio.Task[Run]] = set()
    try:
        for index, question in enumerate(questions):
            tasks.add(asyncio.create_task(_one(plan, question, index)))
            if len(tasks) >= in_flight:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _one(plan: Plan, question: Any, index: int) -> Run:
    try:
        bound = plan.bind(None, dict(question)) if isinstance(question, Mapping) else plan.bind(question, {})
    except InputError as error:
        return Run(index, Span("pipeline", error=f"InputError: {error}"), error)
    return await execute(plan, bound, index=index)


async def execute_stream(plan: Plan, bound: Bound) -> AsyncIterator[Any]:
    """Follow ``plan`` once and yield its events and, last, the `Run`. Closing the iterator cancels the run."""
    events: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def work() -> None:
        with listener(lambda event: loop.call_soon_threadsafe(events.put_nowait, event)):
            run = await execute(plan, bound)
        loop.call_soon_threadsafe(events.put_nowait, run)  # the same road, so that it comes after every event

    task = asyncio.create_task(work())
    try:
        while True:
            event = await events.get()
            yield event
            if isinstance(event, Run):
                return
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits to its end, without an event loop: a graph of plain functions then costs microseconds a node."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RunError("a plain node waited for something; make its run method a coroutine")


async def follow(plan: Plan, bound: Bound, inline: bool) -> list[Any]:
    """Run the stages of ``plan`` in order and return the value of every slot."""
    slots: list[Any] = [_UNSET] * plan.slots
    followed: dict[int, int] = {}
    position, stages = 0, plan.stages
    while position < len(stages):
        stage = stages[position]
        if inline or len(stage) == 1:
            for step in stage:
                if slots[step.slot] is _UNSET:
                    slots[step.slot] = await _run_step(step, slots, bound, inline)
        else:
            await _run_together([s for s in stage if slots[s.slot] is _UNSET], slots, bound)
        back = None
        for number, loop in enumerate(plan.loops):
            if loop.after == position:
                bound, back = _follow_loop(loop, number, slots, bound, followed, back)
        position = position + 1 if back is None else back
    return slots


def _follow_loop(
    loop: Loop, number: int, slots: list[Any], bound: Bound, followed: dict[int, int], back: int | None
) -> tuple[Bound, int | None]:
    value = _pick(slots[loop.source_slot], loop.edge.output, loop.label)
    if value is SKIPPED or value is _UNSET or back is not None:
        return bound, back
    followed[number] = followed.get(number, 0) + 1
    if loop.edge.loop is not None and followed[number] > loop.edge.loop:
        raise LoopLimit(f"the loop {loop.edge} was followed {loop.edge.loop} times, its bound; raise it with connect(..., loop=n)")
    for slot in loop.body:
        slots[slot] = _UNSET
    return {**bound, loop.target_slot: {**bound.get(loop.target_slot, {}), loop.edge.port: value}}, loop.back


async def _run_together(steps: list[Step], slots: list[Any], bound: Bound) -> None:
    """Run independent steps at the same time; the first failure cancels the others."""
    tasks = [asyncio.create_task(_run_step(step, slots, bound, False)) for step in steps]
    try:
        for step, value in zip(steps, await asyncio.gather(*tasks), strict=True):
            slots[step.slot] = value
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run_step(step: Step, slots: list[Any], bound: Bound, inline: bool) -> Any:
    named, many = _gather(step, slots, bound)
    if named is None:
        return SKIPPED
    parent = current_span.get()
    span = Span(step.name, {name: summary(value) for name, value in named.items()}, started=time.perf_counter())
    if many:
        span.inputs[f"*{step.many}"] = " + ".join(map(summary, many))
    if parent is not None:
        parent.children.append(span)
    token = current_span.set(span)
    if listening():
        emit(NodeStarted(step.name))
    try:
        if step.final or not listening():
            value = await _call(step, many, {**named, **step.calls}, inline)
        else:
            with undertone():
                value = await _call(step, many, {**named, **step.calls}, inline)
        span.output = summary(value)
        return value
    except GraftError as error:
        span.error = f"{type(error).__name__}: {error}"
        raise
    except asyncio.CancelledError:
        span.error = "cancelled"
        raise
    except Exception as error:
        span.error = f"{type(error).__name__}: {error}"
        raise NodeError(f"node '{step.name}' ({type(step.component).__name__}) failed: {span.error}", step.name) from error
    finally:
        span.seconds = time.perf_counter() - span.started
        current_span.reset(token)
        if listening():
            emit(NodeFinished(step.name, span))


async def _call(step: Step, many: list[Any], named: dict[str, Any], inline: bool) -> Any:
    if step.timeout is None:
        if step.is_async:
            return await step.function(*many, **named)
        if inline:
            return step.function(*many, **named)
        return await asyncio.to_thread(step.function, *many, **named)
    try:
        async with asyncio.timeout(step.timeout) as limit:
            if step.is_async:
                return await step.function(*many, **named)
            return await asyncio.to_thread(step.function, *many, **named)  # a thread cannot be stopped; its late result is dropped
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise NodeTimeout(f"node '{step.name}' took longer than its limit of {step.timeout} s", step.name) from error


def _gather(step: Step, slots: list[Any], bound: Bound) -> tuple[dict[str, Any] | None, list[Any]]:
    """The step's arguments, or None if a required one hangs on a branch that was not taken."""
    given = bound.get(step.slot, {})
    named: dict[str, Any] = {}
    many: list[Any] = []
    for port, slot, output, label in step.feeds:
        if port in given:
            continue
        value = _pick(slots[slot], output, label) if output else slots[slot]
        if value is SKIPPED:
            if port in step.required and port != step.many:
                return None, []
        elif port == step.many:
            many.append(value)
        else:
            named[port] = value
    if step.many is not None and not many and step.many not in given:
        return None, []
    named.update(given)
    if step.many is not None and step.many in given:
        many = [named.pop(step.many)]
    return named, many


def _pick(value: Any, output: str, label: bool) -> Any:
    if value is SKIPPED or value is _UNSET or not output:
        return value
    if not label:
        return _field(value, output)
    if not isinstance(value, Branch):
        raise RunError(
            f"a node with the output '{output}' promised a Branch and returned {type(value).__name__}: return Branch(label, value)"
        )
    return value.value if value.label == output else SKIPPED


def _field(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except AttributeError:
        raise RunError(f"a node promised a result with the field '{name}' and returned {type(value).__name__}") from None


def _result(plan: Plan, slots: list[Any]) -> Any:
    ran = {name: slots[slot] for name, slot in plan.sinks if slots[slot] is not SKIPPED}
    values = {name: v.value if isinstance(v, Branch) else v for name, v in ran.items()}
    if not values:
        raise RunError(f"no branch led to a result; the ends of this pipeline are: {', '.join(n for n, _ in plan.sinks)}")
    return next(iter(values.values())) if len(values) == 1 else values


def summary(value: Any) -> str:
    """One short line about a value for the trace; costs the same for 5 passages as for 1,000."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= 80 else f"{value[:79]}…"
    if kind is list or kind is tuple:
        return f"{len(value)} {type(value[0]).__name__}" if value else "empty"
    if value is None or kind in (int, float, bool):
        return str(value)
    return kind.__name__
