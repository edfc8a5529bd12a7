"""``rag index``: files into a corpus on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adapters.folder import CARD
from rag.cli.options import JsonOption
from rag.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from retrievers.corpus import Corpus
    from retrievers.encoders import SentenceEncoder


def index(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders to read.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the corpus, new or from an earlier run.", show_default=False)],
    encoder: Annotated[
        str | None, typer.Option(help="minilm, a folder, a Hugging Face id, or none for BM25 only. \\[default: minilm]")
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            "--encoder-adapter", help="What the encoder wears: an adapter's folder, or its name in the registry.", show_default=False
        ),
    ] = None,
    vectors: Annotated[
        Literal["auto", "flat", "hnsw", "ivf-sq8", "ivf-pq"] | None,
        typer.Option("--index", help="How vectors are searched; auto goes by their number. \\[default: auto]"),
    ] = None,
    chunk_tokens: Annotated[int | None, typer.Option(min=8, max=100_000, help="Tokens of a passage. \\[default: 200]")] = None,
    overlap: Annotated[int | None, typer.Option(min=0, max=100, help="Sentences that neighbouring passages share. \\[default: 1]")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that cannot be read.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete documents whose files are gone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read documents, cut them into passages, encode them and write a corpus. Run it again to update, or to go on after a stop.

    Example:  rag index docs --out handbook
    """
    from rag.cli.console import err, write_json
    from rag.cli.indexing import describe_outcome, index_files, show_outcome, sources

    files, root = sources(paths, out)
    if not files:
        raise InputError(f"{', '.join(map(str, paths))}: there are no files to read")
    try:
        corpus = _corpus(out, _Encoder(encoder, adapter), vectors, chunk_tokens, overlap)
        outcome = index_files(corpus, files, root, strict=strict, prune=prune)
        _build_index(corpus, vectors, changed=bool(outcome.summary.passages or outcome.summary.deleted))
    except KeyboardInterrupt:
        err().print("stopped; what was committed stays; run the same command to resume")
        raise typer.Exit(130) from None
    account = describe_outcome(outcome, corpus)
    write_json(account) if as_json else show_outcome(account)
    if len(outcome.skipped) == len(files):
        raise InputError("none of the files could be read")


class _Encoder:
    """What the options say of the encoder."""

    def __init__(self, model: str | None, adapter: str | None) -> None:
        if model == "none" and adapter is not None:
            raise ConfigError("--encoder-adapter needs an encoder that wears it: leave --encoder none out")
        self.none = model == "none"
        self.given = not self.none and (model is not None or adapter is not None)
        self._model = model or "minilm"
        # the corpus remembers the adapter: a folder has to be found from everywhere
        self._adapter = str(Path(adapter).resolve()) if adapter is not None and (Path(adapter) / CARD).is_file() else adapter

    def build(self) -> SentenceEncoder | None:
        """None for BM25 only."""
        if self.none:
            return None
        from retrievers.encoders import SentenceEncoder

        return SentenceEncoder(self._model, adapter=self._adapter)


def _corpus(out: Path, encoder: _Encoder, vectors: str | None, chunk_tokens: int | None, overlap: int | None) -> Corpus:
    """The corpus at ``out``, made if there is none. Raises `CorpusMismatch` if it was built with another encoder."""
    from retrievers.corpus import Corpus

    chunker = None
    if chunk_tokens is not None or overlap is not None:
        from retrievers.chunkers import AutoChunker

        chunker = AutoChunker(chunk_tokens or 200, 1 if overlap is None else overlap)
    if not Corpus.exists(out):
        return Corpus.create(out, encoder=encoder.build(), chunker=chunker, index=vectors or "auto")
    if encoder.given:
        return Corpus.open(out, encoder=encoder.build(), chunker=chunker)
    corpus = Corpus.open(out, chunker=chunker)
    if encoder.none and corpus.dim:
        raise ConfigError(
            f"{out}: this corpus has vectors ({corpus.manifest().encoder.identity}); leave --encoder out, or choose another --out"
        )
    return corpus


def _build_index(corpus: Corpus, vectors: str | None, *, changed: bool) -> None:
    """Build the vector index where exact search would be slow, or where another kind was asked for."""
    from retrievers.corpus import ann

    manifest = corpus.manifest()
    if not manifest.dim:
        return
    other = vectors is not None and vectors != manifest.index
    if other or (changed and ann.choose(manifest.index, manifest.passages) != "flat"):
        from rag.cli.console import err

        with err().status("building the vector index …"):
            corpus.compact(vectors)
