"""``rag mine``, and the way from questions to a corpus whose encoder wears an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.training.data import Related, read
from tests.adapters.training.parts import WORDS, write_lines
from tests.rag.cli.conftest import Rag
from tests.retrievers.tiny_encoder import encoder_folder


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    rows = [
        {"question": "how long may a suit be worn", "positive": "A suit may be worn outside for 90 minutes. It is checked by two people."},
        {"question": "how long is the descent in the capsule", "positive": "The descent in the capsule takes 22 minutes."},
    ]
    return write_lines(tmp_path / "questions.jsonl", rows)


def lines(path: Path) -> list[Related]:
    records = read(path).records
    assert all(isinstance(record, Related) for record in records)
    return [record for record in records if isinstance(record, Related)]


def test_by_words(rag: Rag, shelf: Path, questions: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "train.jsonl"
    result = rag("mine", shelf, "--data", questions, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    account = json.loads(result.stdout)
    assert (account["by"], account["examples"], account["near"]) == ("bm25", 2, 0)
    found = lines(out)
    assert [record.question for record in found] == [record.question for record in lines(questions)]
    assert account["negatives"] == sum(len(record.negatives) for record in found) > 0
    for record in found:
        assert not any(record.positive in negative for negative in record.negatives)
    told = rag("mine", shelf, "--data", questions, "--out", tmp_path / "again.jsonl", "--skip", 50)
    assert told.exit_code == 0, told.output
    assert "2 questions found no negative" in told.stdout
    assert sorted(path.name for path in out.parent.iterdir()) == ["train.jsonl"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--share", 0.9), "use --skip, or --by dense"),
        (("--by", "dense"), "has no vectors: use --by bm25"),
        (("--negatives", 90, "--skip", 20), "need a depth of 110"),
        (("--data", "none.jsonl"), "there is no such file"),
    ],
)
def test_a_wrong_call(rag: Rag, shelf: Path, questions: Path, tmp_path: Path, wrong: tuple[Any, ...], told: str) -> None:
    result = rag("mine", shelf, "--data", questions, "--out", tmp_path / "out.jsonl", *wrong)
    assert result.exit_code == 2, result.output
    assert told in " ".join(result.output.split())
    assert not (tmp_path / "out.jsonl").exists()


def test_nothing_is_overwritten_and_other_forms_are_refused(rag: Rag, shelf: Path, questions: Path, tmp_path: Path) -> None:
    kept = questions.read_text()
    assert "is there already" in rag("mine", shelf, "--data", questions, "--out", questions).output
    assert questions.read_text() == kept
    other = write_lines(tmp_path / "other.jsonl", [{"text": "a", "label": "b"}])
    assert "mining needs lines of" in rag("mine", shelf, "--data", other, "--out", tmp_path / "out.jsonl").output


def ran(rag: Rag, *arguments: Any) -> dict[str, Any]:
    result = rag(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_from_questions_to_an_adapted_corpus(rag: Rag, tmp_path: Path) -> None:
    base = encoder_folder(tmp_path / "base")
    docs = tmp_path / "docs"
    docs.mkdir()
    for number in range(8):
        (docs / f"{number}.txt").write_text(" ".join(WORDS[9 * number : 9 * number + 9]) + "\n")
    frozen, worn, adapter = tmp_path / "frozen", tmp_path / "worn", tmp_path / "adapter"
    ran(rag, "index", docs, "--out", frozen, "--encoder", base)
    rows = [{"question": WORDS[9 * number], "positive": " ".join(WORDS[9 * number : 9 * number + 9])} for number in range(4)]
    train = tmp_path / "train.jsonl"
    mined = ran(rag, "mine", frozen, "--data", write_lines(tmp_path / "q.jsonl", rows), "--out", train, "--share", 1, "--negatives", 2)
    assert (mined["by"], mined["examples"]) == ("dense", 4)
    ran(rag, "train", "--base", base, "--data", train, "--out", adapter, "--steps", 2, "--batch", 2)
    made = ran(rag, "index", docs, "--out", worn, "--encoder", base, "--encoder-adapter", adapter)
    assert "adapter=LoRA" in made["encoder"]
    assert ran(rag, "index", docs, "--out", worn)["unchanged"] == 8
    for call in ((worn, "--encoder", base), (frozen, "--encoder", base, "--encoder-adapter", adapter)):
        refused = rag("index", docs, "--out", *call)
        assert refused.exit_code == 2
        assert "do not mix" in " ".join(refused.output.split())
    refused = rag("index", docs, "--out", tmp_path / "x", "--encoder", "none", "--encoder-adapter", adapter)
    assert "--encoder-adapter needs an encoder" in " ".join(refused.output.split())


def test_help_shows_an_example(rag: Rag) -> None:
    result = rag("mine", "--help")
    assert result.exit_code == 0
    assert "rag mine handbook --data questions.jsonl" in " ".join(result.stdout.split())
