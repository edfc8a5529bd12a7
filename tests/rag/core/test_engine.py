"""Running a graph: one engine for blocking, asynchronous, many and streamed runs; failures, limits, cancellation."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Literal

import pytest

from rag.core.engine import Run
from rag.core.errors import InputError, LoopLimit, ModelUnavailable, NodeError, NodeTimeout, RunError
from rag.core.join import First
from rag.core.pipeline import Pipeline
from rag.core.ports import Branch
from rag.core.protocols import Retriever
from rag.core.sync import run_sync
from rag.core.trace import NodeFinished, NodeStarted, TextDelta, count, emit, note
from rag.core.types import Hit, Passage


def shout(text: str) -> str:
    return text.upper()


async def whisper(text: str) -> str:
    await asyncio.sleep(0)
    return text.lower()


class Talk:
    """Writes its answer word by word."""

    async def run(self, text: str) -> str:
        for word in text.split():
            emit(TextDelta(word + " "))
            await asyncio.sleep(0)
        return text


def grow(text: str) -> str:
    return text + "x"


def judge(text: str) -> Branch[Literal["done", "again"], str]:
    return Branch("done" if len(text) >= 5 else "again", text)


@pytest.mark.parametrize("node", [shout, whisper])
def test_all_faces_agree(node: object) -> None:
    pipe = Pipeline().add("node", node)
    expected = pipe.run("Ab")
    assert asyncio.run(pipe.arun("Ab")) == expected
    assert [r.value for r in pipe.map(["Ab"])] == [expected]
    last = list(pipe.stream("Ab"))[-1]
    assert isinstance(last, Run)
    assert last.value == expected


def test_values_are_passed_by_reference() -> None:
    seen: list[object] = []

    def keep(items: list[int]) -> list[int]:
        seen.append(items)
        return items

    items = [1, 2]
    assert Pipeline().add("a", keep).add("b", keep).connect("a", "b").run(items) is items
    assert all(value is items for value in seen)


def test_independent_nodes_run_at_the_same_time() -> None:
    both = {"a": asyncio.Event(), "b": asyncio.Event()}

    def meet(own: str, other: str) -> object:
        async def node(text: str) -> str:
            both[own].set()
            await asyncio.wait_for(both[other].wait(), 5)
            return own

        return node

    def end(*names: str) -> str:
        return "".join(names)

    pipe = Pipeline().add("a", meet("a", "b")).add("b", meet("b", "a")).add("end", end).connect("a", "end").connect("b", "end")
    assert pipe.run("q") == "ab"


def test_plain_functions_do_not_block_the_loop() -> None:
    """Two plain nodes of two questions wait for each other: only possible in threads."""
    barrier = threading.Barrier(2, timeout=5)

    def node(text: str) -> str:
        barrier.wait()
        return text

    assert [r.value for r in Pipeline().add("node", node).map(["a", "b"], in_flight=2)] == ["a", "b"]


def test_map_keeps_order_bounds_the_flight_and_holds_failures() -> None:
    flying = 0
    most = 0

    async def node(text: str) -> str:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0.001 * (10 - int(text)))
        flying -= 1
        if text == "3":
            raise ValueError("three")
        return text

    runs = Pipeline().add("node", node).map([str(i) for i in range(10)], in_flight=4)
    assert [r.index for r in runs] == list(range(10))
    assert [r.value for r in runs if r.ok] == [str(i) for i in range(10) if i != 3]
    assert isinstance(runs[3].error, NodeError)
    with pytest.raises(NodeError, match=r"node 'node' .* failed: ValueError: three"):
        _ = runs[3].value
    assert 1 < most <= 4


def test_map_takes_dicts_and_holds_wrong_inputs() -> None:
    runs = Pipeline().add("node", shout).map([{"text": "a"}, {"txt": "b"}, 3])
    assert runs[0].value == "A"
    assert isinstance(runs[1].error, InputError)
    assert isinstance(runs[2].error, InputError)


def test_amap_reads_an_endless_source_as_needed() -> None:
    def endless() -> object:
        number = 0
        while True:
            yield str(number)
            number += 1

    async def first(n: int) -> list[str]:
        found = []
        async for run in Pipeline().add("node", whisper).amap(endless(), in_flight=3):
            found.append(run.value)
            if len(found) == n:
                return found
        return found

    assert len(asyncio.run(first(7))) == 7
    with pytest.raises(InputError, match="in_flight"):
        Pipeline().add("node", whisper).map(["a"], in_flight=0)


def test_a_foreign_error_names_its_node_and_ours_keeps_its_type() -> None:
    def foreign(text: str) -> str:
        return {}[text]

    def ours(text: str) -> str:
        raise ModelUnavailable("http://localhost:1 is down")

    with pytest.raises(NodeError, match="node 'x'") as error:
        Pipeline().add("x", foreign).run("q")
    assert isinstance(error.value.__cause__, KeyError)
    assert error.value.node == "x"
    run = Pipeline().add("y", ours).explain("q")
    assert isinstance(run.error, ModelUnavailable)
    assert "is down" in run.trace.children[0].error


@pytest.mark.parametrize("slow_node", ["async", "plain"])
def test_a_time_limit_stops_a_node(slow_node: str) -> None:
    release = threading.Event()

    async def sleepy(text: str) -> str:
        await asyncio.sleep(30)
        return text

    def busy(text: str) -> str:
        release.wait(30)
        return text

    pipe = Pipeline().add("slow", sleepy if slow_node == "async" else busy, timeout=0.05)
    with pytest.raises(NodeTimeout, match=r"node 'slow' took longer than its limit of 0\.05 s"):
        pipe.run("q")
    release.set()


def test_a_nodes_own_timeout_error_is_not_taken_for_the_limit() -> None:
    async def node(text: str) -> str:
        raise TimeoutError("its own")

    with pytest.raises(NodeError, match="its own") as error:
        Pipeline().add("node", node, timeout=10).run("q")
    assert not isinstance(error.value, NodeTimeout)


def test_cancelling_a_run_cancels_its_nodes() -> None:
    cancelled: list[str] = []

    async def node(text: str) -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(text)
            raise
        return text

    pipe = Pipeline().add("a", node).add("b", node)

    async def scenario() -> None:
        task = asyncio.create_task(pipe.arun("q"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
    assert cancelled == ["q", "q"]


def test_one_failure_cancels_the_nodes_beside_it() -> None:
    cancelled: list[bool] = []

    async def bad(text: str) -> str:
        raise ValueError("bad")

    async def slow(text: str) -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return text

    with pytest.raises(NodeError, match="bad"):
        Pipeline().add("slow", slow).add("bad", bad).run("q")
    assert cancelled == [True]


def test_leaving_a_stream_cancels_the_run() -> None:
    cancelled = threading.Event()

    async def node(text: str) -> str:
        try:
            emit(TextDelta("first"))
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return text

    for event in Pipeline().add("node", node).stream("q"):
        if isinstance(event, TextDelta):
            break
    assert cancelled.wait(5)


def test_a_stream_yields_the_answer_and_not_the_text_of_helpers() -> None:
    pipe = Pipeline().add("rewrite", Talk()).add("answer", Talk()).add("end", First()).connect("rewrite", "answer").connect("answer", "end")
    events = list(pipe.stream("one two"))
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "one two "
    assert [e.node for e in events if isinstance(e, NodeStarted)] == ["rewrite", "answer", "end"]
    assert len([e for e in events if isinstance(e, NodeFinished)]) == 3


def test_a_failing_stream_ends_with_its_run() -> None:
    def bad(text: str) -> str:
        raise ValueError("no")

    last = list(Pipeline().add("bad", bad).stream("q"))[-1]
    assert isinstance(last, Run)
    assert not last.ok


@pytest.mark.parametrize(("text", "result"), [("abcd", "abcdx"), ("ab", "abxxx"), ("a", "axxxx")])
def test_a_loop_goes_round_until_the_branch_leaves_it(text: str, result: str) -> None:
    pipe = Pipeline().add("grow", grow).add("judge", judge).connect("grow", "judge").connect("judge.again", "grow", loop=3)
    assert pipe.run(text) == result
    assert asyncio.run(pipe.arun(text)) == result


def test_a_loop_stops_at_its_bound() -> None:
    pipe = Pipeline().add("grow", grow).add("judge", judge).connect("grow", "judge").connect("judge.again", "grow", loop=3)
    with pytest.raises(LoopLimit, match=r"judge\.again -> grow\.text was followed 3 times, its bound"):
        pipe.run("")
    assert pipe.run("ab") == "abxxx", "the bound counts per run"


def test_a_loop_leaves_nodes_outside_its_body_alone() -> None:
    runs: list[str] = []

    def before(text: str) -> str:
        runs.append("before")
        return text

    pipe = Pipeline().add("before", before).add("grow", grow).add("judge", judge)
    pipe.connect("before", "grow").connect("grow", "judge").connect("judge.again", "grow", loop=9)
    assert pipe.run("ab") == "abxxx"
    assert runs == ["before"]


def test_no_branch_taken_is_an_error_and_not_none() -> None:
    def route(question: str) -> Branch[Literal["a", "b"], str]:
        return Branch("b", question)

    pipe = Pipeline().add("route", route).add("a", shout).connect("route.a", "a")
    with pytest.raises(RunError, match="no branch led to a result; the ends of this pipeline are: a"):
        pipe.run("q")


def test_counts_and_notes_land_on_the_node_that_made_them() -> None:
    async def node(text: str) -> str:
        count(calls=1, prompt_tokens=10)
        count(calls=1)
        note("something to know")
        return text

    def thread(text: str) -> str:
        count(calls=1)
        return text

    run = Pipeline().add("a", node).add("b", thread).connect("a", "b").explain("q")
    first, second = run.trace.children
    assert first.counts == {"calls": 2, "prompt_tokens": 10}
    assert second.counts == {"calls": 1}
    assert run.trace.total("calls") == 3
    assert run.trace.all_notes() == ["a: something to know"]
    assert "! something to know" in str(run.trace)
    assert run.trace.to_dict()["children"][0]["inputs"] == {"text": "q"}


def test_many_runs_at_once_do_not_mix_their_traces() -> None:
    async def node(text: str) -> str:
        for _ in range(int(text)):
            count(calls=1)
            await asyncio.sleep(0)
        return text

    runs = Pipeline().add("node", node).map([str(i) for i in range(1, 9)], in_flight=8)
    assert [r.trace.total("calls") for r in runs] == list(range(1, 9))


def test_a_blocking_call_inside_a_coroutine_is_refused_instead_of_hanging() -> None:
    inner = Pipeline().add("node", whisper)

    async def node(text: str) -> str:
        return str(inner.run(text))

    with pytest.raises(RunError, match="a-prefixed twin"):
        Pipeline().add("outer", node).run("q")


def test_k_bounds_the_result_of_a_call_edge() -> None:
    sizes: list[int | None] = []

    def search(query: str, k: int | None = None) -> list[Hit]:
        sizes.append(k)
        return [Hit(Passage(str(i), ""), 1.0, i) for i in range(9)]

    def last(hits: list[Hit]) -> list[Hit]:
        return hits

    async def ask(question: str, retriever: Retriever) -> int:
        return len(await retriever.asearch(question, 4))

    pipe = Pipeline().add("search", search).add("last", last).add("ask", ask).connect("search", "last").connect("last", "ask.retriever")
    assert pipe.run("q") == 4
    assert sizes == [None], "a node in the middle keeps its own depth"


def test_an_interrupt_in_a_stream_ends_the_run_and_stays_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the next event is awaited: the cancelled step must end before the iterator is closed."""
    from concurrent.futures import Future

    cleaned = threading.Event()

    async def node(text: str) -> str:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            cleaned.set()
        return text

    waits = 0
    original = Future.result

    def result(self: Future[object], timeout: float | None = None) -> object:
        nonlocal waits
        waits += 1
        if waits == 2:  # the first event is NodeStarted; nothing follows it
            raise KeyboardInterrupt
        return original(self, timeout)

    monkeypatch.setattr(Future, "result", result)
    with pytest.raises(KeyboardInterrupt):
        list(Pipeline().add("node", node).stream("q"))
    assert cleaned.wait(5)


def test_plain_nodes_that_block_on_the_background_loop_do_not_use_up_its_threads() -> None:
    """Each holds a thread of the loop while the loop needs a further one for it."""

    async def shout(text: str) -> str:
        return await asyncio.to_thread(text.upper)

    def node(text: str) -> str:
        return run_sync(shout(text))

    questions = [f"q{i}" for i in range(100)]
    runs = Pipeline().add("node", node).map(questions, in_flight=100)
    assert [run.value for run in runs] == [question.upper() for question in questions]


@dataclass(frozen=True)
class Pair:
    left: str


def test_a_result_that_is_not_what_was_promised_fails_its_own_run_only() -> None:
    def pick(text: str) -> Branch[Literal["a", "b"], str]:
        return Branch("a", text) if text == "good" else text  # type: ignore[return-value]

    def pair(text: str) -> Pair:
        return Pair(text) if text == "good" else None  # type: ignore[return-value]

    def end(text: str) -> str:
        return text

    for first, output, says in ((pick, "a", "promised a Branch and returned str"), (pair, "left", "'left' and returned NoneType")):
        pipe = Pipeline().add("first", first).add("end", end).connect(f"first.{output}", "end")
        good, bad = pipe.map(["good", "bad"])
        assert good.value == "good"
        with pytest.raises(RunError, match=says):
            _ = bad.value
