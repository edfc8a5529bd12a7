"""``rag mine``: hard negatives for the training of an encoder, from a corpus."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rag.cli.options import JsonOption
from rag.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from adapters.training.data import Related
    from adapters.training.mining import Mined, Mining, Search, Similarity
    from retrievers.corpus import Corpus

By = Literal["dense", "bm25"]


def mine(
    corpus: Annotated[Path, typer.Argument(help="Folder that `rag index` wrote.", show_default=False)],
    data: Annotated[Path, typer.Option(help='JSONL of {"question", "positive"}.', show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for `rag train`, new.", show_default=False)],
    negatives: Annotated[int, typer.Option(min=1, max=1000, help="Negatives of a question, at most.")] = 4,
    by: Annotated[By | None, typer.Option(help="The search. \\[default: dense, or bm25 if the corpus has no vectors]")] = None,
    depth: Annotated[int, typer.Option(min=1, max=10_000, help="Hits that are looked at.")] = 100,
    skip: Annotated[int, typer.Option(min=0, help="Leave out the first hits: they may be answers too.")] = 0,
    share: Annotated[
        float | None,
        typer.Option(help="A negative scores below this share of the positive's score; dense only. \\[default: 0.95]", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find passages of a corpus that come near a question and do not answer it: the hard negatives that an encoder learns from.

    Example:  rag mine handbook --data questions.jsonl --out train.jsonl && rag train --base minilm --data train.jsonl --out finder
    """
    from adapters.training.data import Related, read
    from adapters.training.mining import Mining
    from rag.cli.console import write_json
    from retrievers.corpus import Corpus

    if out.exists():
        raise InputError(f"{out} is there already; name a new file")
    records = [record for record in read(data).records if isinstance(record, Related)]
    if not records:
        raise InputError(f'{data}: mining needs lines of {{"question", "positive"}}')
    opened = Corpus.open(corpus, read_only=True)
    how: By = by or ("dense" if opened.dim else "bm25")
    if how == "bm25" and share is not None:
        raise ConfigError(
            "--share holds a hit's score against the positive's, which BM25 scores only if it finds it: use --skip, or --by dense"
        )
    options = Mining(negatives, depth, skip, None if how == "bm25" else 0.95 if share is None else share)
    account = {"file": str(out), "by": how, **_write(out, _found(records, opened, how, options))}
    write_json(account) if as_json else _show(account)


def _found(records: Sequence[Related], corpus: Corpus, how: By, options: Mining) -> Iterable[Mined]:
    from rich.progress import track

    from adapters.training.mining import mine
    from rag.cli.console import err

    search, similarity = _search(corpus, how)
    found = mine(records, search, options, similarity)
    return track(found, "searching", len(records), console=err(), transient=True, disable=not err().is_terminal)


def _search(corpus: Corpus, how: By) -> tuple[Search, Similarity | None]:
    if how == "bm25":
        from retrievers.bm25 import BM25

        return BM25(corpus).search_batch, None
    from adapters.training.mining import cosines
    from retrievers.dense import Dense

    encoder = corpus.load_encoder()
    if encoder is None:
        raise ConfigError(f"{corpus.folder} has no vectors: use --by bm25, or index again with an encoder")
    return Dense(corpus).search_batch, cosines(encoder)


def _write(out: Path, found: Iterable[Mined]) -> dict[str, Any]:
    """The file, whole or not at all, and what is in it."""
    counts = {"examples": 0, "negatives": 0, "without": 0, "near": 0}
    new = out.with_name(f".{out.name}.{os.getpid()}.new")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with new.open("w", encoding="utf-8") as file:
            for each in found:
                record = each.record
                line = {"question": record.question, "positive": record.positive, "negatives": list(record.negatives)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                counts["examples"] += 1
                counts["negatives"] += len(record.negatives)
                counts["without"] += not record.negatives
                counts["near"] += each.near
        os.replace(new, out)
    finally:
        new.unlink(missing_ok=True)
    return counts


def _show(account: dict[str, Any]) -> None:
    from rag.cli.console import out, plain

    screen = out()
    screen.print(
        f"{account['examples']:,} questions with {account['negatives']:,} negatives by {account['by']}, in {plain(account['file'])}",
        markup=False,
        soft_wrap=True,
    )
    screen.print(f"{account['near']:,} hits were too near to the positive", soft_wrap=True)
    if account["without"]:
        screen.print(f"{account['without']:,} questions found no negative: others of their batch are theirs", soft_wrap=True)
