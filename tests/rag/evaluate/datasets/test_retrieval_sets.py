"""BEIR folders, the SciFact archive and NovelEval: relevance without answers."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from rag.core.errors import InputError, ReadError
from rag.evaluate.datasets import load
from tests.rag.evaluate.datasets.conftest import Write


def beir(write: Write, qrels: str, split: str = "test") -> Path:
    write("set/corpus.jsonl", [{"_id": "d1", "title": "T", "text": "A."}, {"_id": "d2", "text": "B."}])
    write("set/queries.jsonl", [{"_id": "q1", "text": "One?"}, {"_id": "q2", "text": "Two?"}, {"_id": "q3", "text": "Three?"}])
    return write(f"set/qrels/{split}.tsv", "query-id\tcorpus-id\tscore\n" + qrels).parents[1]


def test_a_beir_folder_asks_the_judged_queries(write: Write) -> None:
    data = load(beir(write, "q2\td1\t2\nq2\td2\t0\nq1\td2\t1\nq9\td1\t1\n"))
    assert data.name == "set"
    assert [(q.id, q.gold, dict(q.grades)) for q in data.questions] == [("q1", ("d2",), {"d2": 1}), ("q2", ("d1",), {"d1": 2, "d2": 0})]
    assert [(p.id, p.title, p.text) for p in data.passages] == [("d1", "T", "A."), ("d2", "", "B.")]
    assert data.notes == ("judged pairs: test.tsv", "1 judged query is not in queries.jsonl and is left out: q9")
    assert data.metrics == ("ndcg@10", "recall@10", "recall@100")


def test_a_beir_folder_without_a_test_split_takes_dev(write: Write) -> None:
    assert load(beir(write, "q1\td1\t1\n", "dev")).notes == ("judged pairs: dev.tsv",)


def test_a_beir_grade_must_be_a_whole_number(write: Write) -> None:
    with pytest.raises(InputError, match=r"test\.tsv, line 2: the relevance grade must be a whole number, not 'yes'"):
        load(beir(write, "q1\td1\tyes\n"))


def test_a_beir_corpus_with_an_id_twice(write: Write) -> None:
    folder = beir(write, "q1\td1\t1\n")
    write("set/corpus.jsonl", [{"_id": "d1", "text": "A."}, {"_id": "d1", "text": "B."}])
    with pytest.raises(InputError, match="line 2: the passage id 'd1' is given more than once"):
        load(folder)


def test_a_beir_folder_without_judgements(write: Write) -> None:
    folder = beir(write, "q1\td1\t1\n")
    (folder / "qrels/test.tsv").unlink()
    with pytest.raises(InputError, match=r"not a BEIR folder; it needs corpus\.jsonl"):
        load(folder)


def scifact(path: Path, abstract: str = "['One.'\n \"Two's.\"]", **files: str) -> Path:
    abstract = abstract.replace('"', '""')
    content = {
        "corpus_train.csv": f'doc_id,title,abstract,structured\n7,Cells,"{abstract}",False\n8,Mice,"[\'Three.\']",False\n',
        "claims_validation.csv": "id,claim,evidence_doc_id,evidence_label,evidence_sentences,cited_doc_ids\n"
        "1,Cells grow.,,,[],[7 8]\n2,Mice grow.,8,SUPPORT,[0],[8]\n2,Mice grow.,8,SUPPORT,[1],[8]\n",
        **files,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return path


def test_scifact_reads_arrays_and_joins_the_rows_of_a_claim(tmp_path: Path) -> None:
    data = load(scifact(tmp_path / "s.zip"))
    assert [(q.id, q.gold, q.kind) for q in data.questions] == [("1", ("7", "8"), "no evidence"), ("2", ("8",), "support")]
    assert (data.passages[0].text, data.passages[0].title) == ("One. Two's.", "Cells")


def test_scifact_arrays_are_never_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"corpus_train\.csv, line 2: 'abstract' must be a NumPy array"):
        load(scifact(tmp_path / "s.zip", "[__import__('os').getcwd()]"))


def test_an_archive_that_is_not_scifact(tmp_path: Path, write: Write) -> None:
    with zipfile.ZipFile(tmp_path / "o.zip", "w") as archive:
        archive.writestr("a.csv", "a")
    with pytest.raises(InputError, match=r"there is no corpus_train\.csv in it; it holds a\.csv"):
        load(tmp_path / "o.zip", format="scifact")
    with pytest.raises(ReadError, match="not an archive that can be read"):
        load(write("t.zip", b"PK\x03\x04"), format="scifact")


def test_an_archive_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.evaluate.datasets.scifact._LARGEST", 20)
    with pytest.raises(InputError, match=r"corpus_train\.csv unpacks to more than 20 bytes"):
        load(scifact(tmp_path / "s.zip"))


def test_scifact_in_another_encoding(tmp_path: Path) -> None:
    path = scifact(tmp_path / "s.zip")
    with zipfile.ZipFile(path) as archive:
        claims = archive.read("claims_validation.csv")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("corpus_train.csv", "doc_id,title,abstract\n7,Bär,['A']\n".encode("latin-1"))
        archive.writestr("claims_validation.csv", claims)
    with pytest.raises(ReadError, match=r"corpus_train\.csv: not UTF-8"):
        load(tmp_path / "t.zip")


def noveleval(write: Write, qrels: str = "0 Q0 0-0 2\n0 Q0 0-1 0\n", corpus: str = "0-0\tA\tB\n0-1\tC\n") -> Path:
    write("n/corpus.tsv", corpus)
    write("n/queries.tsv", "0\tWho?\n1\tUnjudged?\n")
    return write("n/qrels.txt", qrels).parent


def test_noveleval_keeps_grades_and_the_judged_passages(write: Write) -> None:
    data = load(noveleval(write))
    question = data.questions[0]
    assert (len(data.questions), question.gold, question.grades) == (1, ("0-0",), {"0-0": 2, "0-1": 0})
    assert question.metadata["passages"] == ("0-0", "0-1")
    assert data.passages[0].text == "A\tB"


def test_noveleval_lines_that_do_not_fit(write: Write) -> None:
    with pytest.raises(InputError, match=r"qrels\.txt, line 1: expected 'query Q0 passage grade'"):
        load(noveleval(write, qrels="0 0-0 2\n"))
    with pytest.raises(InputError, match=r"corpus\.tsv, line 2: expected an id, a tab and a text"):
        load(noveleval(write, corpus="0-0\tA\n0-1 C\n"))
    with pytest.raises(InputError, match="not NovelEval"):
        load(write("other/x.json", "[]").parent, format="noveleval")
