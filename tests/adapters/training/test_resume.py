"""A run that was stopped, at a step or by SIGKILL, ends with the very weights of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from adapters.adapted import Adapted
from adapters.contract import Planned, TrainingState
from adapters.training.checkpoint import TENSORS
from adapters.training.journal import FILE, Event, Journal
from adapters.training.tasks import CausalTask
from adapters.training.trainer import Outcome, train
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch, InputError
from tests.adapters.training.parts import FAST, examples, lora, same, tokenizer, weights

TASK = CausalTask(tokenizer(), 64)
OPTIONS = replace(FAST, steps=9, batch=5, save_every=2, eval_every=3, weight_decay=0.1, schedule="cosine")


class Stopped(Exception):
    pass


def start(method: str = "LoRA", on: str = "llama", **options: Any) -> Adapted:
    return lora(on, seed=11, method=method, **options)


def go(adapted: Adapted, folder: Path, stop_at: int | None = None, resume: bool = False, pause: float = 0, **changes: Any) -> Outcome:
    def hear(event: Event) -> None:
        if pause:
            print(event.step, flush=True)
            time.sleep(pause)
        if event.step == stop_at:
            raise Stopped

    held_out = examples(15)[12:]
    changes |= {"keep": "last"} if isinstance(adapted.worn, Planned) else {}
    return train(adapted, TASK, examples(), replace(OPTIONS, **changes), held_out, folder, resume, {"data": "x"}, hear)


def told(folder: Path) -> list[dict[str, Any]]:
    return [{**asdict(event), "seconds": 0} for event in Journal(folder).events()]


@pytest.mark.parametrize("stop_at", [1, 2, 5, 9])
def test_stopped_at_a_step(tmp_path: Path, stop_at: int) -> None:
    whole = start()
    expected = go(whole, tmp_path / "whole")
    with pytest.raises(Stopped):
        go(start(), tmp_path / "parts", stop_at)
    # all must come from the checkpoint, so it may start elsewhere; the event of step 2 comes before the first checkpoint
    resumed = start() if stop_at <= 2 else lora(seed=99)
    outcome = go(resumed, tmp_path / "parts", resume=True)
    assert same(weights(resumed), weights(whole))
    assert (outcome.held_out, outcome.kept, outcome.tokens) == (expected.held_out, expected.kept, expected.tokens)
    assert (outcome.first_loss, outcome.last_loss) == (expected.first_loss, expected.last_loss)
    assert told(tmp_path / "parts") == told(tmp_path / "whole")


def test_resumed_at_its_end_it_gives_the_best_weights(tmp_path: Path) -> None:
    whole = start()
    expected = go(whole, tmp_path)
    again = start()
    assert go(again, tmp_path, resume=True) == expected
    assert same(weights(again), weights(whole))


def both(tmp_path: Path, method: str, options: dict[str, Any]) -> tuple[Adapted, Adapted]:
    """One trained whole, and one stopped at step 5 that is to be resumed."""
    whole = start(method, on="gpt2", **options)
    go(whole, tmp_path / "whole")
    with pytest.raises(Stopped):
        go(start(method, on="gpt2", **options), tmp_path / "parts", 5)
    return whole, start(method, on="gpt2", **options)


@pytest.mark.parametrize(
    ("method", "options"),
    [("PrefixTuning", {"length": 2}), ("SerialAdapter", {"bottleneck": 4}), ("BitFit", {}), ("DoRA", {"r": 2})],
)
def test_other_methods_go_on(tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    whole, resumed = both(tmp_path, method, options)
    go(resumed, tmp_path / "parts", resume=True)
    assert same(weights(resumed), weights(whole))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("AdaLoRA", {"init_r": 3, "target_r": 2, "tinit": 1, "tfinal": 1}),
        ("FishMask", {"ratio": 0.05}),
        ("ChildTuning", {"variant": "F", "p": 0.3}),
    ],
)
def test_a_method_with_a_state_of_its_own_goes_on_or_is_refused(tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    whole, resumed = both(tmp_path, method, options)
    if not isinstance(resumed.worn, TrainingState):
        with pytest.raises(AdapterError, match="cannot be resumed; start it afresh"):
            go(resumed, tmp_path / "parts", resume=True)
        return
    go(resumed, tmp_path / "parts", resume=True)
    assert same(weights(resumed), weights(whole))


CHILD = """
import sys
from pathlib import Path
from tests.adapters.training.test_resume import go, start
go(start(), Path(sys.argv[1]), pause=0.05, save_every=1)
"""


def test_killed(tmp_path: Path) -> None:
    """At any moment of steps 4 to 7: in a step, in an evaluation, or while a checkpoint is written."""
    whole = start()
    go(whole, tmp_path / "whole", save_every=1)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", CHILD, str(tmp_path / "parts")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "4":
            time.sleep(random.uniform(0, 0.15))
            child.kill()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    resumed = lora(seed=99)
    go(resumed, tmp_path / "parts", resume=True, save_every=1)
    assert same(weights(resumed), weights(whole))
    assert told(tmp_path / "parts") == told(tmp_path / "whole")


def test_a_run_is_not_lost_by_a_second_start_or_other_settings(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        go(start(), tmp_path, 5)
    with pytest.raises(InputError, match="holds a run that was stopped: resume it"):
        go(start(), tmp_path)
    with pytest.raises(AdapterMismatch, match=r"lr was 0\.01, is 0\.1"):
        go(start(), tmp_path, resume=True, lr=0.1)
    with pytest.raises(AdapterMismatch, match="arguments was"):
        go(start(r=3), tmp_path, resume=True)
    file = next(tmp_path.rglob(TENSORS))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(AdapterDamaged, match="not the file that was written"):
        go(start(), tmp_path, resume=True)


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        go(start(), tmp_path, 5)
    file = tmp_path / FILE
    file.write_text(file.read_text() + '{"step": 6, "los')
    assert [event.step for event in Journal(tmp_path).events()] == [0, 1, 2, 3, 4, 5]
    file.write_text("{}\n" + file.read_text())
    with pytest.raises(AdapterDamaged, match=r"losses\.jsonl:1 is not what was written"):
        list(Journal(tmp_path).events())
