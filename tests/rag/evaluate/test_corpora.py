from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rag.core.errors import ConfigError, InputError
from rag.core.pipeline import Pipeline
from rag.core.types import Passage
from rag.evaluate.compare import compare
from rag.evaluate.corpora import index_passages, missing_corpora, needs_vectors, pointed_to
from rag.evaluate.identity import changes, pipeline_key
from rag.evaluate.runner import evaluate
from rag.evaluate.types import DataSet, Question
from retrievers.corpus import Corpus

WORDS = ("apple", "pear", "cherry", "plum")


@pytest.fixture
def data() -> DataSet:
    """Each question's gold passage is the one with its word; two passages share a document."""
    passages = [Passage(f"{word}:0", f"All about the {word}.", "fruit" if n < 2 else "") for n, word in enumerate(WORDS)]
    questions = [Question(word, f"What of the {word}?", gold=(f"{word}:0",)) for word in WORDS]
    return DataSet("fruit", questions, passages, ("recall@1",), "en", "", "fruit")


def search(path: Path | str, k: int = 2) -> Pipeline:
    return Pipeline.from_yaml(f"nodes:\n  search: {{type: BM25, corpus: {{type: Corpus, path: {path}}}, k: {k}}}\n")


def test_gold_passages_are_found_under_their_ids(data: DataSet, tmp_path: Path) -> None:
    pipe = search("nowhere")
    assert missing_corpora(pipe) == ["nowhere"]
    assert not needs_vectors([pipe])
    assert index_passages(data, tmp_path / "corpus", encoder=None)
    pipe = pointed_to(pipe, tmp_path / "corpus", only_missing=True)
    assert missing_corpora(pipe) == []
    outcomes = evaluate(pipe, data, folder=tmp_path / "runs", name="bm25")
    mean = compare(data, {"bm25": outcomes}, ["recall@1"]).results[0].means["recall@1"]
    assert mean is not None
    assert (mean.mean, mean.n) == (1.0, 4)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["corpus", "runs"]


def test_a_corpus_that_is_there_is_left_as_it_is(data: DataSet, tmp_path: Path) -> None:
    index_passages(replace(data, passages=data.passages[:1]), tmp_path / "corpus", encoder=None)
    assert not index_passages(data, tmp_path / "corpus", encoder=None)
    assert len(Corpus.open(tmp_path / "corpus")) == 1

    here, elsewhere = search(tmp_path / "corpus"), tmp_path / "other"
    assert pointed_to(here, elsewhere, only_missing=True).to_yaml() == here.to_yaml()
    assert missing_corpora(pointed_to(here, elsewhere, only_missing=False)) == [str(elsewhere)]


def test_indexing_that_was_stopped_goes_on(data: DataSet, tmp_path: Path) -> None:
    half = tmp_path / "corpus.building"
    Corpus.create(half, encoder=None).add_passages(data.passages[:2])
    index_passages(data, tmp_path / "corpus", encoder=None)
    assert sorted(p.id for p in Corpus.open(tmp_path / "corpus").each_passage()) == sorted(p.id for p in data.passages)
    assert not half.exists()


def test_what_cannot_be_indexed_is_refused(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fruit: this data set brings no passages"):
        index_passages(replace(data, passages=[]), tmp_path / "corpus", encoder=None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="something here that is not a corpus"):
        index_passages(data, tmp_path / "full", encoder=None)
    Corpus.create(tmp_path / "corpus.building", encoder=None)
    with pytest.raises(ConfigError, match="began this corpus without vectors"):
        index_passages(data, tmp_path / "corpus", encoder="minilm")


def test_a_run_is_known_by_what_its_corpus_holds_and_not_by_where_it_lies(data: DataSet, tmp_path: Path) -> None:
    for name in ("one", "same"):
        index_passages(data, tmp_path / name, encoder=None)
    index_passages(replace(data, passages=data.passages[:3]), tmp_path / "less", encoder=None)
    keys = {name: pipeline_key(search(tmp_path / name)) for name in ("one", "same", "less")}
    assert keys["one"] == keys["same"]
    assert "'passages': 3" in str(keys["less"])
    assert changes(keys["one"], keys["less"]).startswith("corpora: ")
    assert changes(keys["one"], pipeline_key(search(tmp_path / "one", k=3))) == "pipeline: 'k: 2' then, 'k: 3' now"


def test_the_key_names_the_models_and_holds_no_password() -> None:
    pipe = Pipeline.from_yaml(
        'nodes:\n  answer: {type: Direct, model: {type: VLLM, url: "http://me:secret@localhost:1/v1", model: base, adapter: mine}}\n'
    )
    key = pipeline_key(pipe)
    assert key["models"] == ["mine"]
    assert "secret" not in str(key)
    assert "http://localhost:1/v1" in key["pipeline"]


def test_changes_say_what_was_added_and_what_is_long_is_cut() -> None:
    assert changes({"a": "x\ny"}, {"a": "x\ny\nz"}) == "a: 'nothing' then, 'z' now"
    assert changes({"a": "x", "b": 1}, {"a": "y" * 200, "b": 1}) == f"a: 'x' then, '{'y' * 119}…' now"
