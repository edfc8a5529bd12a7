"""What `rag serve` and `rag mcp` put behind an address: a pipeline, and a retriever for those who only search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag.cli.options import RetrieverKind
    from rag.core.pipeline import Pipeline
    from rag.core.protocols import LanguageModel, Retriever


def from_file(file: Path) -> tuple[Pipeline, Retriever | None]:
    """The pipeline of ``file``, whose own retriever serves. A corpus that cannot be opened fails now, not at the first question."""
    from rag.core.pipeline import Pipeline
    from rag.serve.inspection import corpora_of

    pipe = Pipeline.from_yaml(file)
    for shelf in corpora_of(pipe):
        len(shelf)
    return pipe, None


def over_corpus(
    corpus: Path,
    model: LanguageModel,
    kind: RetrieverKind | None,
    k: int | None,
    max_tokens: int | None,
    contexts: Path | None = None,
) -> tuple[Pipeline, Retriever | None]:
    """The default pipeline, and a retriever that gives more than the ``k`` passages that the pipeline's model reads.

    With the store ``contexts``, the model's server has it too, and the pipeline answers by `Stitched`.
    """
    from rag.cli.default_pipeline import build, retriever_for
    from rag.serve.inspection import retriever_of
    from rag.serve.openai_types import MAX_K
    from retrievers.corpus import Corpus

    shelf = Corpus.open(corpus)
    kind = kind or retriever_for(shelf)
    return build(shelf, model, kind, k or 4, max_tokens or 256, contexts), retriever_of(build(shelf, model, kind, MAX_K))
