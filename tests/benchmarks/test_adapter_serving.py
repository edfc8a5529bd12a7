"""The parts of the benchmark, and a whole run against a scripted server."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch

from benchmarks import adapter_serving as bench
from benchmarks.adapter_serving import ADAPTERS, STRENGTH, Answer, Difference, Request
from benchmarks.kept import Kept
from generators.models.served_adapter import check
from tests.adapters.tiny import tiny
from tests.generators.models.lora_server import LoraServer, on_network


def test_differences_are_found_where_they_begin() -> None:
    same, parts, longer = Answer([1, 2], [1.0, 1.0]), Answer([1, 2, 3], [1.0, 5e-5, 1.0]), Answer([1], [1.0])
    mixed = [same, Answer([1, 4, 9], [1.0, 1.0, 1.0]), Answer([1, 2], [1.0, 1.0])]
    assert bench.differences([same, parts, longer], mixed) == [Difference(1, 1, 5e-5), Difference(2, 1, float("inf"))]
    assert [difference.tie for difference in bench.differences([same, parts, longer], mixed)] == [True, False]


def test_what_differs_is_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [Request(None, "a"), Request("two", "b"), Request("one", "c")]
    alone = [Answer([1], [1.0]), Answer([1], [1e-5]), Answer([1], [0.5])]
    rows = bench.equality("adapters", asked, alone, [Answer([1], [1.0]), Answer([2], [1.0]), Answer([2], [1.0])])
    assert {row.metric: (row.value, row.unit) for row in rows} == {
        "equal": (1, "of 3"),
        "ties": (1, "of 3"),
        "different": (1, "of 3"),
    }
    told = capsys.readouterr().out
    assert "request 1 (two) parts at token 0, gap 1.00e-05: a tie" in told
    assert "request 2 (one) parts at token 0, gap 5.00e-01: NOT a tie" in told


def test_requests_are_shared_equally_and_mixed() -> None:
    asked = bench.requests(64, list(ADAPTERS))
    assert sorted(Counter(request.adapter for request in asked).values()) == [12, 13, 13, 13, 13]
    assert len({request.question for request in asked}) == 64
    assert [request.adapter for request in asked[:5]] != [None, *ADAPTERS]
    assert asked == bench.requests(64, list(ADAPTERS))
    assert asked != bench.requests(64, list(ADAPTERS), seed=1)


def test_the_adapters_change_each_layer_by_the_stated_share_and_leave_the_model(tmp_path: Path) -> None:
    from adapters import load

    model = tiny("llama")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    paths = bench.write_adapters(tmp_path, model)
    assert list(paths) == list(ADAPTERS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, path in paths.items():
        check(path, bench.MAX_RANK)
        adapted = load(model, path)
        for weight, value in adapted.merged().items():
            share = (value - before[weight]).norm() / before[weight].norm()
            assert float(share) == pytest.approx(STRENGTH, rel=1e-3), (name, weight)
        adapted.remove()
    first = (paths["one"] / "adapter_model.safetensors").read_bytes()
    assert (bench.write_adapters(tmp_path / "again", model)["one"] / "adapter_model.safetensors").read_bytes() == first


def test_figures_are_medians_with_their_ends() -> None:
    rows = {(row.case, row.metric): row for row in bench.speed_rows("adapters", {"mixed": [8.0, 10.0, 9.0], "base": [20.0, 18.0, 16.0]})}
    told = rows["adapters", "tokens_per_s"]
    assert (told.value, told.peer, told.peer_value, told.ratio) == (9.0, "base only", 18.0, 0.5)
    assert (rows["adapters", "tokens_per_s_min"].value, rows["base", "tokens_per_s_max"].value) == (8.0, 20.0)
    changes = {row.metric: row.value for row in bench.change_rows("adapters", {"load": [0.3, 0.1, 0.2]})}
    assert changes == {"load_s": 0.2, "load_s_min": 0.1, "load_s_max": 0.3}


@pytest.mark.parametrize("wrong", [("--requests", "0"), ("--max-tokens", "0"), ("--rounds", "0")])
def test_wrong_options(wrong: tuple[str, str]) -> None:
    with pytest.raises(SystemExit):
        bench.options(wrong)


def test_a_whole_run_and_its_resumption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = LoraServer()
    on_network(server, monkeypatch)
    paths = bench.write_adapters(tmp_path / "adapters", tiny("llama"))
    given = bench.options(["--requests", "10", "--rounds", "2", "--url", "http://models.example:8000/v1"])
    kept = Kept(tmp_path / "runs")

    def rows() -> dict[tuple[str, str], Any]:
        return {(row.case, row.metric): row for row in bench.measure(given, given.url, paths, kept, {"seed": 0})}

    found = rows()
    assert (found["adapters", "equal"].value, found["adapters", "ties"].value, found["adapters", "different"].value) == (10, 0, 0)
    assert found["3_on_2_slots", "equal"].value == 8
    assert found["3_on_2_slots", "loads"].value >= 3
    assert found["adapters", "tokens_per_s"].peer == "base only"
    assert {metric for case, metric in found if case == "adapters"} >= {"tokens_per_s", "equal", "ties", "load_s", "unload_s"}
    assert (server.robbed, server.loaded) == ([], {})
    asked = len(server.bodies)
    assert rows() == found
    assert len(server.bodies) == asked
