"""Every method there is can be trained, and the loss that it is trained on is the one that its model gives for labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from adapters import adapt
from adapters.contract import Planned
from adapters.methods import build
from adapters.training.data import Record
from adapters.training.tasks import CausalTask, ClassificationTask, Seq2SeqTask
from adapters.training.trainer import train
from tests.adapters.table import TABLE, Row
from tests.adapters.tiny import tiny
from tests.adapters.training.parts import FAST, answered, labelled, tokenizer

ROWS = list({(row.method, row.on): row for row in TABLE}.values())


def task_for(on: str) -> tuple[Any, list[Record]]:
    if on == "bert":
        return ClassificationTask(tokenizer(), 32, "abc"), list(labelled(4))
    return (Seq2SeqTask if on == "t5" else CausalTask)(tokenizer(), 32), list(answered(4))


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_it_learns_the_answers(row: Row) -> None:
    model = tiny(row.on)
    torch.manual_seed(0)
    adapted = adapt(model, build(row.method, dict(row.options)))
    task, records = task_for(row.on)
    examples = task.encode(records).examples
    keep = "last" if isinstance(adapted.worn, Planned) else "best"
    outcome = train(adapted, task, examples, replace(FAST, steps=30, batch=4, lr=3e-2, eval_every=5, keep=keep), held_out=examples)
    batch = task.batch(examples)
    with torch.no_grad():
        theirs = float(adapted.model(**batch.inputs[0], labels=batch.targets).loss)
        ours = float(task.loss(adapted.model, batch)) / batch.weight
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ours < outcome.held_out[0][1]
