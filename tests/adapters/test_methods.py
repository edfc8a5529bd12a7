"""The promises of the contract, for every method on every architecture."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import adapt, load
from adapters.adapted import Adapted
from adapters.contract import GivesLora, Merges, NeedsExamples, Penalised, Steps
from adapters.folder import CARD, WEIGHTS, read_card
from adapters.methods import build, names
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch
from tests.adapters.table import REFUSED, TABLE, Row
from tests.adapters.tiny import batch_for, tiny

STEPS = 6


def made(row: Row, dtype: torch.dtype = torch.float64) -> Adapted:
    return adapt(tiny(row.on, dtype), build(row.method, dict(row.options)))


def logits(model: Any, on: str) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch_for(on)).logits.clone()


def train(adapted: Adapted, on: str, steps: int = STEPS) -> set[str]:
    """Take steps on one batch, as the trainer does; gives the names that had a gradient."""
    worn, batch = adapted.worn, batch_for(on)
    torch.manual_seed(1)
    if isinstance(worn, NeedsExamples):
        worn.prepare(lambda: (adapted.model(**{key: value[i : i + 1] for key, value in batch.items()}).loss for i in range(3)))
    if isinstance(worn, Steps):
        worn.begin(steps)
    moved = adapted.trained()
    optimizer = torch.optim.AdamW(list(moved.values()), lr=1e-2)
    reached = set()
    adapted.model.train()
    for step in range(steps):
        loss = adapted.model(**batch).loss
        if isinstance(worn, Penalised):
            loss = loss + worn.penalty()
        loss.backward()
        reached |= {name for name, parameter in moved.items() if parameter.grad is not None}
        if isinstance(worn, Steps):
            worn.before_step()
        optimizer.step()
        if isinstance(worn, Steps):
            worn.after_step(step)
        optimizer.zero_grad()
    adapted.model.eval()
    return reached


@pytest.fixture(scope="module", params=TABLE, ids=str)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def trained(row: Row) -> tuple[Adapted, torch.Tensor, set[str]]:
    """The method after a few steps, what the model answers then, and what had a gradient."""
    adapted = made(row)
    reached = train(adapted, row.on)
    return adapted, logits(adapted.model, row.on), reached


def test_the_table_holds_every_method() -> None:
    assert {row.method for row in TABLE} == set(names()) - {"LinkTokens"}, "which acts on tokens of its own: additive/test_link_tokens.py"


@pytest.mark.parametrize("row", [row for row in TABLE if row.exact], ids=str)
def test_at_the_start_the_model_is_the_base_model(row: Row) -> None:
    base = logits(tiny(row.on, torch.float64), row.on)
    assert torch.equal(logits(made(row).model, row.on), base)


def test_gradients_reach_all_that_trains_and_nothing_else_moves(row: Row, trained: tuple[Adapted, torch.Tensor, set[str]]) -> None:
    adapted, after, reached = trained
    assert reached == set(adapted.trained())
    assert not torch.equal(after, logits(tiny(row.on, torch.float64), row.on))
    own = {id(parameter) for parameter in adapted.trained().values()}
    before = tiny(row.on, torch.float64).state_dict()
    for name, parameter in adapted._weights.items():
        if id(parameter) not in own:
            assert torch.equal(parameter, before[name]), f"{name} is not trained, and moved"


def test_a_saved_adapter_answers_the_same(row: Row, trained: tuple[Adapted, torch.Tensor, set[str]], tmp_path: Path) -> None:
    adapted, after, _ = trained
    adapted.save(tmp_path / "saved", {"note": "a test"})
    again = load(tiny(row.on, torch.float64), tmp_path / "saved")
    assert torch.equal(logits(again.model, row.on), after)
    card = read_card(tmp_path / "saved")
    assert (card["method"], card["note"]) == (row.method, "a test")


def test_removed_it_leaves_the_base_model_bit_for_bit(row: Row, trained: tuple[Adapted, torch.Tensor, set[str]], tmp_path: Path) -> None:
    adapted, _, _ = trained
    adapted.save(tmp_path / "saved")
    again = load(tiny(row.on, torch.float64), tmp_path / "saved")
    base = again.remove()
    before = tiny(row.on, torch.float64).state_dict()
    after = base.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith("classifier"))
    assert type(base) is type(tiny(row.on))


def test_merged_weights_answer_the_same(row: Row, trained: tuple[Adapted, torch.Tensor, set[str]], tmp_path: Path) -> None:
    adapted, after, _ = trained
    assert adapted.exports() == row.exports
    if not isinstance(adapted.worn, Merges):
        with pytest.raises(AdapterError, match="cannot be merged"):
            adapted.merged()
        return
    adapted.save(tmp_path / "saved")
    merged = load(tiny(row.on, torch.float64), tmp_path / "saved").merge()
    torch.testing.assert_close(logits(merged, row.on), after, rtol=0, atol=1e-6)  # LLaMA's RMSNorm computes in float32
    adapted.export("merged", tmp_path / "merged")
    alone = type(merged).from_pretrained(tmp_path / "merged", dtype=torch.float64).eval()
    torch.testing.assert_close(logits(alone, row.on), after, rtol=0, atol=1e-6)


def test_as_plain_lora_it_answers_the_same(row: Row, trained: tuple[Adapted, torch.Tensor, set[str]], tmp_path: Path) -> None:
    adapted, after, _ = trained
    if not isinstance(adapted.worn, GivesLora):
        with pytest.raises(AdapterError, match="plain LoRA"):
            adapted.to_lora()
        return
    factors = adapted.export("lora", tmp_path / "lora")
    assert factors is not None
    assert factors.residual <= row.residual
    if row.residual == 0 and row.on != "bert":  # a classifier's head is no part of a LoRA
        plain = load(tiny(row.on, torch.float64), tmp_path / "lora")
        torch.testing.assert_close(logits(plain.model, row.on), after, rtol=0, atol=1e-6)


def test_another_model_is_refused(row: Row, trained: tuple[Adapted, torch.Tensor, set[str]], tmp_path: Path) -> None:
    trained[0].save(tmp_path / "saved")
    with pytest.raises(AdapterMismatch, match="was made for"):
        load(tiny(row.on, torch.float64, seed=5), tmp_path / "saved")


def test_a_damaged_folder_is_refused(row: Row, trained: tuple[Adapted, torch.Tensor, set[str]], tmp_path: Path) -> None:
    trained[0].save(tmp_path / "saved")
    weights = tmp_path / "saved" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-4])
    model = tiny(row.on, torch.float64)
    with pytest.raises(AdapterDamaged, match="checksum"):
        load(model, tmp_path / "saved")
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in tiny(row.on, torch.float64).state_dict().items())
    (tmp_path / "saved" / CARD).unlink()
    with pytest.raises(AdapterError, match="no adapter of graft"):
        load(tiny(row.on, torch.float64), tmp_path / "saved")


@pytest.mark.parametrize(("method", "on"), REFUSED)
def test_a_model_without_a_place_for_it_is_refused(method: str, on: str) -> None:
    with pytest.raises(AdapterError, match="looked for"):
        adapt(tiny(on), build(method, {}))


@pytest.mark.parametrize("name", names())
def test_options_are_documented_and_light(name: str) -> None:
    cls = type(build(name, {}))
    assert (cls.__doc__ or "").strip()
    assert "import torch\n" not in inspect.getsource(inspect.getmodule(cls))  # type: ignore[arg-type]
