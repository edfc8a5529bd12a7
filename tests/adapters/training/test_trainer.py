from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters.adapted import Adapted, adapt
from adapters.reparameterised.adalora.config import AdaLoRA
from adapters.training.journal import Event
from adapters.training.options import Options
from adapters.training.tasks import Batch, CausalTask, ClassificationTask, ContrastiveTask, Seq2SeqTask
from adapters.training.trainer import train
from rag.core.errors import AdapterError, InputError
from tests.adapters.tiny import tiny
from tests.adapters.training.parts import FAST, answered, examples, labelled, lora, related, same, tokenizer, weights

TASK = CausalTask(tokenizer(), 64)


def run(adapted: Adapted, options: Options = FAST, **more: Any) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    outcome = train(adapted, more.pop("task", TASK), more.pop("rows", examples()), options, on_event=events.append, **more)
    return outcome, events


def test_the_loss_falls_and_only_the_adapter_moves() -> None:
    adapted = lora(r=4)
    outcome, events = run(adapted, replace(FAST, steps=30))
    assert [event.step for event in events] == list(range(1, 31))
    assert (outcome.steps, outcome.total, outcome.early, outcome.kept) == (30, 30, False, 30)
    assert outcome.first_loss == events[0].loss
    assert outcome.last_loss == events[-1].loss
    assert outcome.last_loss < outcome.first_loss - 0.1
    assert all(event.tokens > 0 and event.tokens_per_second > 0 for event in events)
    assert outcome.tokens == sum(event.tokens for event in events)
    assert not adapted.model.training
    base, before = adapted.remove(), tiny("llama").state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())


def test_the_same_seed_gives_the_same_weights() -> None:
    found = []
    for seed in (3, 3, 4):
        adapted = lora()
        run(adapted, replace(FAST, seed=seed))
        found.append(weights(adapted))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_gathered_batches_weigh_as_one_large_batch() -> None:
    """Rows of unlike length: a mean of the batches' means would differ."""
    found = []
    for batch, accumulate in ((12, 1), (1, 12), (5, 3)):
        adapted = lora(dtype=torch.float64, r=2)
        run(adapted, replace(FAST, batch=batch, accumulate=accumulate, steps=3))
        found.append(weights(adapted))
    for other in found[1:]:
        for name, tensor in found[0].items():
            torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-6)


def test_activations_computed_again_give_the_same_weights() -> None:
    found = []
    for checkpointing in (False, True):
        adapted = lora()
        run(adapted, replace(FAST, checkpointing=checkpointing))
        assert not adapted.base.is_gradient_checkpointing
        found.append(weights(adapted))
    assert same(found[0], found[1])


@pytest.mark.parametrize("on", ["t5", "bert", "encoder"])
def test_every_kind_of_model_learns(on: str) -> None:
    if on == "t5":
        task, records, adapted = Seq2SeqTask(tokenizer(), 32), answered(), lora("t5", r=4, targets="all")
    elif on == "bert":
        task, records, adapted = ClassificationTask(tokenizer(), 32, "abc"), labelled(), lora("bert", r=4)
    else:
        from adapters import adapt
        from adapters.methods import build

        task, records = ContrastiveTask(tokenizer(), 32), related()
        adapted = adapt(tiny("bert").bert, build("LoRA", {"r": 4}))
    outcome, events = run(adapted, replace(FAST, steps=40), task=task, rows=task.encode(records).examples)
    early, late = (sum(event.loss or 0 for event in part) for part in (events[:5], events[-5:]))
    assert late < early
    assert outcome.steps == 40


def test_a_classifiers_head_trains() -> None:
    adapted = lora("bert", r=2)
    before = weights(adapted)
    task = ClassificationTask(tokenizer(), 32, "abc")
    run(adapted, task=task, rows=task.encode(labelled()).examples)
    assert not torch.equal(before["head.classifier.weight"], weights(adapted)["head.classifier.weight"])


def test_the_gradient_is_clipped() -> None:
    """SGD-like check: Adam's first step is lr times the sign whatever the norm, so the second moment tells the gradient's size."""
    seen: list[float] = []

    class Watches(Facets):
        def after_step(self, step: int) -> None:
            super().after_step(step)
            gradients = [parameter.grad for parameter in self.trained().values() if parameter.grad is not None]
            seen.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))

    _, events = run(worn_by(Watches), replace(FAST, max_grad_norm=0.01))
    assert all(event.gradient is not None and event.gradient > 0.02 for event in events)
    assert all(math.isclose(norm, 0.01, rel_tol=1e-3) for norm in seen)


def test_the_best_weights_are_kept_and_patience_ends() -> None:
    """Held-out examples that contradict the data: the more is learnt, the worse."""
    rows = examples(4)
    against = TASK.encode([replace(record, answer="w88 w89") for record in answered(4)]).examples
    adapted = lora(r=4)
    seen: dict[int, dict[str, Tensor]] = {}
    options = replace(FAST, steps=40, eval_every=2, patience=3, lr=3e-2)

    def hear(event: Event) -> None:
        events.append(event)
        seen[event.step] = weights(adapted)

    events: list[Event] = []
    outcome = train(adapted, TASK, rows, options, held_out=against, on_event=hear)
    assert outcome.early
    assert outcome.steps == outcome.kept + 6 < 40
    losses = dict(outcome.held_out)
    assert list(losses) == list(range(0, outcome.steps + 1, 2))
    assert losses[outcome.kept] == min(loss for step, loss in losses.items() if step)
    assert {event.step: event.held_out for event in events if event.held_out is not None} == losses
    assert same(weights(adapted), seen[outcome.kept])
    last = lora(r=4)
    outcome = train(last, TASK, rows, replace(options, keep="last"), held_out=against)
    assert outcome.kept == outcome.steps


@pytest.mark.parametrize("given", [{}, {"keep": "last", "patience": 2}])
def test_a_planned_method_is_kept_to_its_last_step(given: dict[str, Any]) -> None:
    adapted = adapt(tiny("llama"), AdaLoRA(init_r=4, target_r=2, tinit=1, tfinal=2))
    rows, options = examples(8), replace(FAST, steps=8, **given)
    with pytest.raises(InputError, match=r"AdaLoRA meets its budget of ranks only in its last phase.*keep 'last' and without patience"):
        train(adapted, TASK, rows, options, held_out=rows)
    assert train(adapted, TASK, rows, replace(options, keep="last", patience=None), held_out=rows).kept == 8


def test_held_out_loss_is_the_mean_over_answer_tokens() -> None:
    adapted, rows = lora(r=2), examples(7)
    outcome, _ = run(adapted, replace(FAST, steps=1), rows=rows, held_out=rows)
    with torch.no_grad():
        batch = TASK.batch(rows)
        whole = float(TASK.loss(adapted.model, batch)) / batch.weight
    assert math.isclose(outcome.held_out[-1][1], whole, rel_tol=1e-5)


class Broken(CausalTask):
    """Its loss is ``value`` from call ``at`` on."""

    def __init__(self, at: int, value: float) -> None:
        super().__init__(tokenizer(), 64)
        self._left, self._value = at, value

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self._left -= 1
        loss = super().loss(model, batch)
        return loss * self._value if self._left < 0 else loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(value: float) -> None:
    adapted = lora()
    seen: list[dict[str, Tensor]] = []
    with pytest.raises(AdapterError, match=rf"step 4: the loss is {value}; training stops.*smaller lr"):
        train(adapted, Broken(3, value), examples(), FAST, on_event=lambda event: seen.append(weights(adapted)))
    assert len(seen) == 3
    assert same(weights(adapted), seen[-1])
    assert not adapted.model.training


class Facets:
    """LoRA with every optional facet; it notes what was called."""

    def __init__(self, worn: Any) -> None:
        self._worn = worn
        self.calls: list[str] = []
        self.looked: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worn, name)

    def trained(self) -> dict[str, nn.Parameter]:
        return dict(self._worn.trained())

    def prepare(self, losses: Any) -> None:
        found: Iterator[Tensor] = losses()
        for loss in found:
            assert loss.requires_grad
            self.looked.append(loss.detach())
        self.calls.append("prepare")

    def begin(self, total: int) -> None:
        self.calls.append(f"begin {total}")

    def before_step(self) -> None:
        assert all(parameter.grad is not None for parameter in self.trained().values())
        self.before = {name: parameter.detach().clone() for name, parameter in self.trained().items()}
        self.calls.append("before")

    def after_step(self, step: int) -> None:
        assert all(parameter.grad is not None for parameter in self.trained().values())
        assert not same(self.before, {name: parameter.detach() for name, parameter in self.trained().items()})
        self.calls.append(f"after {step}")

    def penalty(self) -> Tensor:
        self.calls.append("penalty")
        return 0.5 * sum((parameter.square().sum() for parameter in self.trained().values()), torch.zeros(()))

    def training_state(self) -> dict[str, Tensor]:
        return {"calls": torch.tensor(len(self.calls))}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        self.calls.append(f"restored {int(state['calls'])}")


def worn_by(kind: type, **options: Any) -> Adapted:
    adapted = lora(r=2, **options)
    adapted.worn = kind(adapted.worn)
    return adapted


def test_a_method_has_its_say_in_the_order_of_the_contract() -> None:
    adapted = worn_by(Facets)
    facets: Any = adapted.worn
    _, events = run(adapted, replace(FAST, steps=2))
    steps = ["penalty", "before", "after 0", "penalty", "before", "after 1"]
    assert facets.calls == ["prepare", "begin 2", *steps]
    assert len(facets.looked) == 12
    assert all(event.penalty is not None and event.penalty > 0 for event in events)


def test_examples_are_looked_at_one_by_one_as_the_mean_over_their_tokens() -> None:
    adapted, rows = worn_by(Facets), examples(5)
    with torch.no_grad():
        expected = sorted(float(TASK.loss(adapted.model, TASK.batch([row]))) / len(row.parts[1]) for row in rows)
    facets: Any = adapted.worn
    run(adapted, replace(FAST, steps=1), rows=rows)
    assert sorted(float(loss) for loss in facets.looked) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_is_in_the_gradient() -> None:
    """With a penalty and nothing else to learn, weights only shrink."""

    class Nothing(CausalTask):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            return super().loss(model, batch) * 0

    adapted = worn_by(Facets)
    before = float(sum(tensor.square().sum() for tensor in weights(adapted).values()))
    _, events = run(adapted, replace(FAST, steps=20), task=Nothing(tokenizer(), 64))
    after = float(sum(tensor.square().sum() for tensor in weights(adapted).values()))
    assert after < before
    assert events[0].penalty == pytest.approx(0.5 * before, rel=1e-5)


def test_one_question_without_negatives_cannot_be_looked_at() -> None:
    from adapters import adapt
    from adapters.methods import build

    adapted = adapt(tiny("bert").bert, build("LoRA", {"r": 2}))
    adapted.worn = Facets(adapted.worn)
    task = ContrastiveTask(tokenizer(), 32)
    rows = task.encode([replace(record, negatives=()) for record in related()]).examples
    with pytest.raises(InputError, match="give each example 'negatives'"):
        train(adapted, task, rows, FAST)


def test_bfloat16_is_close_to_float32_and_leaves_no_trace() -> None:
    found = []
    for precision in ("float32", "bfloat16", "float32"):
        adapted = lora(r=4)
        outcome, _ = run(adapted, replace(FAST, precision=precision))
        assert all(tensor.dtype == torch.float32 for tensor in weights(adapted).values())
        found.append((outcome.last_loss, weights(adapted)))
    assert found[0][0] != found[1][0]
    assert found[0][0] == pytest.approx(found[1][0], rel=0.02)
    assert same(found[0][1], found[2][1])


def test_what_cannot_be_done_is_refused() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="float16 needs a GPU"):
            run(lora(), replace(FAST, precision="float16"))
    with pytest.raises(InputError, match="resume needs the folder"):
        run(lora(), resume=True)
    with pytest.raises(InputError, match="needs 1 examples or more; the data has 0"):
        run(lora(), rows=[])
