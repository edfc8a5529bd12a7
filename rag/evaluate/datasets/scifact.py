"""SciFact (Wadden et al., 2020) as one archive of CSV files, its arrays written as NumPy prints them."""

from __future__ import annotations

import ast
import io
import zipfile
import zlib

from rag.core.errors import InputError, ReadError
from rag.core.types import Passage
from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record
from rag.evaluate.datasets.source import Source, parse_table
from rag.evaluate.types import Question

_CORPUS, _CLAIMS = "corpus_train.csv", "claims_validation.csv"
_LARGEST = 200_000_000


def _recognises(source: Source) -> bool:
    if not source.is_zip():
        return False
    try:
        with zipfile.ZipFile(source.path) as archive:
            return {_CORPUS, _CLAIMS} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


@data_format(
    "scifact",
    what="SciFact: scientific claims and the abstracts they cite (gold: the cited abstracts), no answers",
    files=f"scifact.zip with {_CORPUS} and {_CLAIMS}",
    fields="corpus: doc_id, title, abstract; claims: id, claim, evidence_label, cited_doc_ids",
    licence="CC BY 4.0 (claims), ODC-By 1.0 (abstracts)",
    metrics=("ndcg@10", "recall@10"),
    recognises=_recognises,
)
def read_scifact(source: Source) -> Draft:
    """The validation claims, one row per piece of evidence. What a claim cites is relevant, as in BEIR; ``kind`` is the verdict."""
    try:
        with zipfile.ZipFile(source.path) as archive:
            abstracts, claims = (_records(source, archive, name) for name in (_CORPUS, _CLAIMS))
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:  # RuntimeError: encrypted, or packed in an unknown way
        raise ReadError(f"{source.path}: not an archive that can be read: {error}") from None
    passages = [Passage(r.name("doc_id"), _sentences(r), title=r.text("title")) for r in abstracts]
    gold: dict[str, list[str]] = {}
    claim: dict[str, tuple[str, str]] = {}
    for record in claims:
        id = record.name("id")
        gold.setdefault(id, []).extend(record.text("cited_doc_ids").strip("[]").split())
        claim[id] = record.filled("claim"), record.text("evidence_label", default="").lower() or claim.get(id, ("", ""))[1]
    questions = [
        Question(id, text, gold=tuple(dict.fromkeys(gold[id])), kind=verdict or "no evidence") for id, (text, verdict) in claim.items()
    ]
    return Draft(questions, passages, language="en", answers=False)


def _records(source: Source, archive: zipfile.ZipFile, name: str) -> list[Record]:
    try:
        if archive.getinfo(name).file_size > _LARGEST:
            raise InputError(f"{source.path}: {name} unpacks to more than {_LARGEST:,} bytes, which is not SciFact")
        data = archive.read(name)
        text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="").read()
    except KeyError:
        raise InputError(f"{source.path}: there is no {name} in it; it holds {', '.join(archive.namelist()[:8])}") from None
    except UnicodeDecodeError:
        raise ReadError(f"{source.path}, {name}: not UTF-8") from None
    rows, numbers = parse_table(text, ",", f"{source.path}, {name}")
    return [source.record(row, f"{source.path}, {name}, line {n}") for row, n in zip(rows, numbers, strict=True)]


def _sentences(record: Record) -> str:
    """The text of a NumPy array of strings as it prints: one quoted sentence per line."""
    lines = record.text("abstract").strip().removeprefix("[").removesuffix("]").split("\n")
    try:
        return " ".join(str(ast.literal_eval(line.strip())) for line in lines if line.strip())
    except (ValueError, SyntaxError):
        raise record.bad("'abstract' must be a NumPy array of strings as it prints, one sentence per line") from None
