"""Reads the retrieval sets that the benchmarks use, unaltered, from the folder given with ``--data``."""

from __future__ import annotations

import ast
import csv
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from rag.core.errors import InputError
from rag.core.types import Passage


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """Passages, queries by id, and for each query the relevant passage ids with their grades."""

    name: str
    passages: list[Passage]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]


def xquad(data: Path, language: str) -> RetrievalSet:
    """XQuAD: each question's own paragraph is relevant. 240 paragraphs, 1,190 questions."""
    file = _existing(data / "xquad" / f"xquad.{language}.json")
    passages: list[Passage] = []
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for article in json.loads(file.read_text("utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            id = f"p{len(passages)}"
            passages.append(Passage(id, paragraph["context"]))
            for question in paragraph["qas"]:
                queries[question["id"]] = question["question"]
                relevant[question["id"]] = {id: 1}
    return RetrievalSet(f"xquad-{language}", passages, queries, relevant)


def scifact(data: Path) -> RetrievalSet:
    """SciFact dev: 5,183 abstracts, 300 claims; what a claim cites is relevant (339 pairs), as in BEIR."""
    passages = [
        Passage(row["doc_id"], f"{row['title']} {_sentences(row['abstract'])}", title=row["title"])
        for row in scifact_rows(data, "corpus_train")
    ]
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for row in scifact_rows(data, "claims_validation"):
        queries[row["id"]] = row["claim"]
        relevant.setdefault(row["id"], {}).update(dict.fromkeys(row["cited_doc_ids"].strip("[]").split(), 1))
    return RetrievalSet("scifact", passages, queries, relevant)


def scifact_rows(data: Path, table: str) -> list[dict[str, str]]:
    """The rows of a table in SciFact's archive: corpus_train, claims_train, claims_validation. Raises `InputError`."""
    file = _existing(data / "scifact" / "scifact.zip")
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{table}.csv") as opened:
            return list(csv.DictReader(io.TextIOWrapper(opened, "utf-8", newline="")))
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: it is not the SciFact that the benchmarks read ({error})") from error


def _sentences(array: str) -> str:
    """The text of a NumPy array of strings as it prints: one quoted sentence per line."""
    return " ".join(ast.literal_eval(line.strip()) for line in array.strip()[1:-1].split("\n") if line.strip())


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; --data takes the folder that holds xquad/ and scifact/")
    return file
