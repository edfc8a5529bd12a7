from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from adapters.training.journal import Event, Journal  # noqa: E402
from generators.decoupled.batches import Example, batch  # noqa: E402
from generators.decoupled.memory import logprobs, remember  # noqa: E402
from generators.decoupled.model import EncoderDecoder  # noqa: E402
from generators.decoupled.train import Settings, train  # noqa: E402
from rag.core.errors import AdapterMismatch, InputError, ModelError  # noqa: E402
from tests.generators.decoupled import tiny  # noqa: E402

EXAMPLES = [Example(((word, word + 1), (40, 41)), (9,), (word, word + 1, 1)) for word in range(50, 70)]
SETTINGS = Settings(6, batch=4, lr=1e-2, without=0.3, save_every=2)


def made() -> EncoderDecoder:
    return tiny.model(dropout_rate=0.1)


class Stopped(BaseException):
    """As Ctrl-C."""


def test_a_stopped_run_ends_with_the_very_weights_of_one_that_was_not(tmp_path: Path) -> None:
    whole = made()
    assert train(whole, EXAMPLES, SETTINGS, tmp_path / "whole") == 6

    def stop(event: Event) -> None:
        if event.step == 5:
            raise Stopped

    with pytest.raises(Stopped):
        train(made(), EXAMPLES, SETTINGS, tmp_path / "parts", stop)
    torch.rand(3)
    resumed = made()
    assert train(resumed, EXAMPLES, SETTINGS, tmp_path / "parts") == 2  # from step 4
    assert resumed.identity == whole.identity
    assert not resumed.model.training
    told = [[(event.step, event.loss) for event in Journal(tmp_path / run).events()] for run in ("whole", "parts")]
    assert told[0] == told[1]
    assert [step for step, _ in told[0]] == [1, 2, 3, 4, 5, 6]
    finished = made()
    assert train(finished, EXAMPLES, SETTINGS, tmp_path / "whole") == 0
    assert finished.identity == whole.identity
    assert {file.suffix for file in (tmp_path / "whole").rglob("*") if file.is_file()} == {".json", ".jsonl", ".safetensors"}


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from tests.generators.decoupled.test_train import EXAMPLES, SETTINGS, made, train\n"
        "train(made(), EXAMPLES, SETTINGS, sys.argv[1], lambda event: os.kill(os.getpid(), signal.SIGKILL) if event.step == 3 else None)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert train(made(), EXAMPLES, SETTINGS, tmp_path / "run") == 4


def test_encoder_and_decoder_learn_together_what_stands_in_the_contexts(tmp_path: Path) -> None:
    model = tiny.model()
    before = {name: parameter.clone() for name, parameter in model.model.named_parameters()}
    settings = Settings(60, batch=10, lr=1e-2, without=0.0)
    events: list[Event] = []
    train(model, EXAMPLES, settings, tmp_path / "run", events.append)
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.model.named_parameters())
    assert events[-1].loss < events[0].loss / 2

    def found(example: Example, whose: Example) -> float:
        memory = remember(model, [model.encode(context) for context in whose.contexts])
        return float(logprobs(model, memory, example.prefix, example.target).sum())

    own = [found(example, example) for example in EXAMPLES]
    others = [found(example, EXAMPLES[at - 7]) for at, example in enumerate(EXAMPLES)]
    assert sum(own) > sum(others) + len(EXAMPLES)


def test_some_steps_have_no_contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[int] = []

    def told(examples, *rest):
        numbers.append(sum(len(example.contexts) for example in examples))
        return batch(examples, *rest)

    monkeypatch.setattr("generators.decoupled.train.batch", told)
    train(made(), EXAMPLES, Settings(20, batch=4, without=0.5), tmp_path / "run")
    assert set(numbers) == {0, 8}
    assert 4 <= numbers.count(0) <= 16


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    train(made(), EXAMPLES, Settings(2, batch=4), tmp_path / "run")
    for model, examples, settings in (
        (made(), EXAMPLES, Settings(3, batch=4)),
        (made(), EXAMPLES[1:], Settings(2, batch=4)),
        (tiny.model(seed=9, dropout_rate=0.1), EXAMPLES, Settings(2, batch=4)),
    ):
        with pytest.raises(AdapterMismatch, match="of another run"):
            train(model, examples, settings, tmp_path / "run")


def test_a_loss_that_is_no_number_stops_before_it_is_kept(tmp_path: Path) -> None:
    model = made()
    with torch.no_grad():
        model.model.decoder.final_layer_norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="step 1: the loss is nan"):
        train(model, EXAMPLES, SETTINGS, tmp_path / "run")
    assert not list((tmp_path / "run").glob("step-*"))
    assert not model.model.training


def test_settings_out_of_range(tmp_path: Path) -> None:
    for wrong in ({"steps": 0}, {"steps": 2, "lr": 0}, {"steps": 2, "without": 1.0}, {"steps": 2, "batch": 0}, {"steps": 2, "warmup": 2}):
        with pytest.raises(InputError, match="training"):
            Settings(**wrong)
    with pytest.raises(InputError, match="one example"):
        train(made(), [], SETTINGS, tmp_path / "run")
