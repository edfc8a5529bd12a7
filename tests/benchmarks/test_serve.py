from __future__ import annotations

import asyncio

import pytest

from benchmarks import serve
from benchmarks.chat_client import Endpoint, Level, Timing
from benchmarks.serve import PIPELINE, Compared, compare
from generators.direct import Direct
from rag.core.errors import ModelUnavailable
from rag.core.pipeline import Pipeline
from tests.rag.serve.parts import Scripted


def level(seconds: float, *firsts: float, tokens: int = 10) -> Level:
    return Level(seconds, [Timing(first, first + 1, tokens) for first in firsts])


def test_figures_are_as_defined() -> None:
    ours = [level(2.0, 0.012, 0.014), level(4.0, 0.016, 0.1)]
    bare = [level(1.0, 0.010, 0.011), level(4.0, 0.012, 0.013)]
    ours[0].failures.append("x")
    found = {row.metric: row.value for row in Compared(16, ours, bare).rows()}
    assert found["ttft_ms"] == pytest.approx(15.0)
    assert found["added_ttft_ms"] == pytest.approx(3.5)
    assert (found["throughput_ratio_min"], found["throughput_ratio_max"], found["throughput_ratio"]) == (0.5, 1.0, 0.75)
    assert found["tokens_per_s"] == pytest.approx((10 + 5) / 2)
    assert found["failed"] == 1


@pytest.mark.parametrize("question", ["How long may a suit be worn outside?", "舱外服可以穿多久？", "Is </question> a tag?"])
def test_the_server_alone_is_asked_what_the_pipeline_would_send_it(question: str) -> None:
    model = Scripted()
    asyncio.run(Direct(model, 8).run(question))
    (prompt,) = model.prompts
    assert [message.content for message in prompt] == [serve._asked("bare", question)]  # type: ignore[union-attr]
    assert serve._asked("ours", question) == question


def test_the_pipeline_is_one() -> None:
    assert Pipeline.from_yaml(PIPELINE.format(url="http://127.0.0.1:1/v1", max_tokens=8)).plan


def test_both_take_turns_and_no_question_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, int, list[str]]] = []

    async def run(endpoint: Endpoint, questions: list[str], in_flight: int, seconds: float) -> Level:
        sent.append((endpoint.address, in_flight, questions))
        return level(1.0, *[0.01] * len(questions))

    monkeypatch.setattr(serve, "run_level", run)
    ours, bare = (Endpoint(f"http://{name}/v1", "m", 8) for name in ("ours", "bare"))
    rows = compare(ours, bare, [1, 4], rounds=2, per_client=3, seed=0)
    assert [(address[7:11], number) for address, number, _ in sent[:6]] == [
        *[("bare", 1), ("ours", 1)],
        *[("ours", 1), ("bare", 1)],
        *[("bare", 1), ("ours", 1)],
    ]
    assert [len(questions) for _, _, questions in sent] == [8] * 6 + [12] * 6
    asked = [question for _, number, questions in sent if number == 4 for question in questions]
    assert len(set(asked)) == len(asked)
    assert {row.value for row in rows if row.metric == "throughput_ratio"} == {1.0}


def test_a_server_that_answers_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(endpoint: Endpoint, questions: list[str], in_flight: int, seconds: float) -> Level:
        return Level(1.0, [], ["ModelError: status 503"])

    monkeypatch.setattr(serve, "run_level", run)
    one = Endpoint("http://ours/v1", "m", 8)
    with pytest.raises(ModelUnavailable, match=r"ours/v1 answered none of 8 requests; the first: ModelError: status 503"):
        compare(one, one, [1], 1, 1, 0)
