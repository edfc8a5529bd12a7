"""Questions that bring their own context pieces, without gold among them: CacheBlend's MuSiQue file (Yao et al., 2025) and DPR's form."""

from __future__ import annotations

from rag.evaluate.datasets.draft import Draft, Shelf
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question


def _recognises(source: Source) -> bool:
    return {"question", "answers", "ctxs"} <= source.first().keys()


@data_format(
    "musique_contexts",
    what="questions with their own context pieces and no gold among them (CacheBlend's MuSiQue, DPR's form)",
    files="one JSON file, such as musique_s.json",
    fields="question (text), answers (list of texts), ctxs: [{title, text}]",
    licence="CC BY 4.0 (MuSiQue); the file states none",
    metrics=("f1", "exact_match"),
    recognises=_recognises,
)
def read_contexts(source: Source) -> Draft:
    """A question's id is its number in the file, from 1; ``metadata["passages"]`` are the ids of its own pieces, in order."""
    shelf = Shelf()
    questions = []
    for n, record in enumerate(source.records(), start=1):
        own = [shelf.put(piece.text("text"), title=piece.text("title", default="")) for piece in record.records("ctxs")]
        metadata = {"passages": tuple(own)}
        questions.append(Question(str(n), record.filled("question"), record.texts("answers"), metadata=metadata))
    return Draft(questions, shelf.passages(), language="en")
