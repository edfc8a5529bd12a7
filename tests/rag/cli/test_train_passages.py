"""``rag train`` on passages that do not see each other, and the way of its adapter to answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from adapters import load
from adapters.folder import read_card
from rag.core.errors import CorpusMismatch
from rag.core.pipeline import Pipeline
from retrievers.context.store import ContextStore
from tests.adapters.training.parts import write_lines
from tests.generators.models.conftest import tiny_folder  # noqa: F401
from tests.rag.cli.conftest import Rag
from tests.rag.cli.test_train import model_folder

QUICK = ("--steps", 4, "--batch", 3, "--lr", 0.02, "--set", "r=2")
TEXTS = ["the cat sat on the mat", "Paris is the capital of France"]
ROWS = [{"passages": TEXTS[: 1 + n % 2], "question": f"who {n} ?", "answer": f"the cat {n}"} for n in range(9)]


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:  # noqa: F811
    """The tiny model with a window for a prompt of several passages."""
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_folder, max_position_embeddings=2048)).save_pretrained(
        tmp_path / "base"
    )
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "train.jsonl", ROWS)


def account(rag: Rag, *arguments: Any) -> dict[str, Any]:
    result = rag(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_the_card_says_that_passages_were_apart(rag: Rag, base: Path, data: Path, tmp_path: Path) -> None:
    held_out = write_lines(tmp_path / "eval.jsonl", ROWS[:3])
    found = account(rag, "train", "--base", base, "--data", data, "--eval", held_out, "--out", tmp_path / "healed", *QUICK)
    assert (found["steps"], found["examples"], found["cut"]) == (4, 9, {})
    card = read_card(tmp_path / "healed")
    assert (card["attention"], card["max_tokens"]) == ("passages apart", 2048)
    ids = torch.arange(2, 12)[None]
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    before = model(ids).logits
    assert not torch.equal(load(model, tmp_path / "healed").model(ids).logits, before)


def test_passages_that_do_not_fit_are_told_and_what_never_fits_is_an_error(rag: Rag, base: Path, data: Path, tmp_path: Path) -> None:
    call = ("train", "--base", base, "--data", data, *QUICK)

    short = rag(*call, "--out", tmp_path / "short", "--max-tokens", 100)
    assert short.exit_code == 0, short.output
    assert "4 of 9 examples: the passages was cut, to 100 tokens in all (--max-tokens)" in short.stderr
    assert read_card(tmp_path / "short")["cut"] == {"passages": 4}
    never = rag(*call, "--out", tmp_path / "never", "--max-tokens", 80)
    assert never.exit_code == 2
    assert "the question 'who 0 ?' takes" in never.output
    assert not (tmp_path / "never").exists()


def test_a_healed_model_builds_a_store_of_its_own_and_answers_from_it(
    rag: Rag, base: Path, data: Path, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_ADAPTERS", str(tmp_path / "registry"))
    account(rag, "train", "--base", base, "--data", data, "--out", tmp_path / "healed", *QUICK)
    assert rag("adapters", "add", tmp_path / "healed", "--base", base).exit_code == 0
    stores = {name: tmp_path / f"contexts-{number}" for number, name in enumerate((None, str(tmp_path / "healed"), "healed"))}
    for name, store in stores.items():
        built = account(rag, "contexts", "build", shelf, "--store", store, "--model", base, *(("--adapter", name) if name else ()))
        assert built["encoded"] == built["passages"] > 0
        assert (built["model"]["adapter"] is None) == (name is None)
    bare, by_path, by_name = (ContextStore(store).info()["model"]["adapter"] for store in stores.values())
    assert bare is None
    assert by_path == by_name is not None
    for name, store in stores.items():
        answer = {"type": "Stitched", "store": str(store), "model": str(base), "adapter": name, "k": 2, "max_tokens": 4}
        search = {"type": "BM25", "corpus": {"type": "Corpus", "path": str(shelf)}, "k": 2}
        pipe = Pipeline.from_yaml(json.dumps({"nodes": {"search": search, "answer": answer}, "edges": ["search -> answer.retriever"]}))
        run = pipe.explain("How long may a suit be worn outside?")
        assert (run.trace.total("contexts_hit"), run.trace.total("contexts_missed")) == (1, 0)
    wrong = {"type": "Stitched", "store": str(stores[None]), "model": str(base), "adapter": "healed"}
    pipe = Pipeline.from_yaml(json.dumps({"nodes": {"search": search, "answer": wrong}, "edges": ["search -> answer.retriever"]}))
    with pytest.raises(CorpusMismatch):
        pipe.run("How long may a suit be worn outside?")


def test_link_tokens_answer_from_a_store_of_the_bare_model(rag: Rag, base: Path, data: Path, shelf: Path, tmp_path: Path) -> None:
    links = ("--method", "linktokens", "--set", "count=3", "--steps", 2, "--batch", 3, "--lr", 0.02)
    found = account(rag, "train", "--base", base, "--data", data, "--out", tmp_path / "linked", *links)
    assert found["trained"] == 3 * AutoConfig.from_pretrained(base).hidden_size
    assert read_card(tmp_path / "linked")["attention"] == "passages apart"
    account(rag, "contexts", "build", shelf, "--store", tmp_path / "contexts", "--model", base)
    answer = {"type": "Stitched", "store": str(tmp_path / "contexts"), "model": str(base), "adapter": str(tmp_path / "linked")}
    search = {"type": "BM25", "corpus": {"type": "Corpus", "path": str(shelf)}, "k": 2}
    nodes = {"search": search, "answer": {**answer, "k": 2, "max_tokens": 4}}
    pipe = Pipeline.from_yaml(json.dumps({"nodes": nodes, "edges": ["search -> answer.retriever"]}))
    run = pipe.explain("How long may a suit be worn outside?")
    assert (run.trace.total("contexts_hit"), run.trace.total("contexts_missed")) == (1, 0)


def test_link_tokens_need_passages(rag: Rag, base: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "plain.jsonl", [{"prompt": "a", "answer": "b"}])
    result = rag("train", "--base", base, "--data", data, "--out", tmp_path / "out", "--method", "linktokens", "--steps", 1)
    assert result.exit_code == 2, result.output
    assert "give data with passages" in result.output


def test_an_adapter_that_is_not_there_is_named(rag: Rag, base: Path, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_ADAPTERS", str(tmp_path / "registry"))
    result = rag("contexts", "build", shelf, "--store", tmp_path / "contexts", "--model", base, "--adapter", "none")
    assert result.exit_code == 2
    assert "there is no adapter 'none'" in result.output


@pytest.mark.parametrize(
    ("on", "told"),
    [("gpt2", "learned positions"), ("bert", "writes no text"), ("t5", "data with passages are for a decoder-only model")],
)
def test_a_model_that_cannot_be_stitched_is_refused(rag: Rag, data: Path, tmp_path: Path, on: str, told: str) -> None:
    result = rag("train", "--base", model_folder(tmp_path / on, on), "--data", data, "--out", tmp_path / "out", *QUICK)
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["PrefixTuning", "PTuning", "APrompt"])
def test_a_method_that_cannot_be_stitched_is_refused(rag: Rag, base: Path, data: Path, tmp_path: Path, method: str) -> None:
    result = rag("train", "--base", base, "--data", data, "--out", tmp_path / "out", "--method", method, "--steps", 1)
    assert result.exit_code == 2, result.output
    assert "such as LoRA" in result.output
