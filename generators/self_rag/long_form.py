"""Self-RAG in long form: a beam search over segments, each written from a passage that it cites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from generators.citations import MARKER
from generators.models.together import together
from generators.refusing import refusal
from generators.retrieval import retrieve
from generators.self_rag.scores import Segment
from generators.self_rag.writer import SegmentWriter
from generators.write import count_confidence
from rag.core.protocols import Retriever
from rag.core.trace import TextDelta, TokensWritten, count, emit, listening, note
from rag.core.types import Answer, Citation, Filter, Hit

SUPPORTED = 0.5
"""The ISSUP score from which a citation is valid: that of a segment that is surely "partially supported"."""


@dataclass(frozen=True, slots=True)
class Path:
    """An answer in the making. ``score`` is the product of its segments' scores, ``total`` their sum."""

    segments: tuple[Segment, ...] = ()
    score: float = 1.0
    total: float = 0.0
    ended: bool = False
    remark: str = ""

    @property
    def text(self) -> str:
        """The segments joined: what the model reads of its own answer."""
        return "".join(segment.text for segment in self.segments)

    @property
    def length(self) -> int:
        """Tokens written."""
        return sum(len(segment.tokens) for segment in self.segments)

    def grown(self, segment: Segment, score: float) -> Path:
        """The path with ``segment`` behind it. A score below 0 counts as 0: two of them would multiply to a good one."""
        spaced = replace(segment, text=_spaced(self.text, segment.text))
        return Path((*self.segments, spaced), self.score * max(score, 0.0), self.total + score, segment.ended)

    def closed(self, remark: str = "") -> Path:
        """The path as it is, for good; ``remark`` tells the reader why."""
        return replace(self, ended=True, remark=remark)


class LongForm:
    """Writes at most ``depth`` segments and ``max_tokens`` tokens, keeping ``beam`` paths. The options are those of `SelfRAG`."""

    def __init__(self, writer: SegmentWriter, k: int, max_tokens: int, beam: int, depth: int) -> None:
        self._writer = writer
        self._k = k
        self._max_tokens = max_tokens
        self._beam = beam
        self._depth = depth

    async def answer(self, question: str, language: str, retriever: Retriever, filter: Filter | None) -> Answer:
        """Answer ``question``; a refusal is in ``language``."""
        paths = [Path()]
        sources: dict[str, Hit] = {}
        told: list[str] = []
        for _ in range(self._depth):
            count(steps=1)
            grown = await together(self._grown(question, path, retriever, filter) for path in paths)
            children = [child for siblings in grown for child in siblings]
            for hit in (child.segments[-1].hit for child in children if child.segments):
                if hit is not None:
                    sources.setdefault(hit.passage.id, hit)
            # Stable: of equal paths, the one from the better passage stays.
            paths = sorted(children, key=lambda path: (path.score, path.total), reverse=True)[: self._beam]
            _tell(told, _shared(paths), sources)
            if all(path.ended for path in paths):
                break
        best = paths[0]
        if not best.segments:
            return refusal(language, best.remark or "the model wrote no text", tuple(sources.values()))
        note(f"kept the path of {len(best.segments)} segments with score {best.score:.3f}")
        return self._finished(best, told, sources)

    async def _grown(self, question: str, path: Path, retriever: Retriever, filter: Filter | None) -> list[Path]:
        """``path`` with each segment that may follow; the path itself, closed, if none does."""
        if path.ended:
            return [path]
        room = self._max_tokens - path.length
        if room < 1:
            return [path.closed(f"the answer was cut off at max_tokens={self._max_tokens}")]
        if await self._writer.retrieves(question, path.text, room):
            query = f"{question} {path.segments[-1].text.strip()}" if path.segments else question
            hits = await retrieve(retriever, query, self._k, filter)
            if not hits:
                return [path.closed("the retriever found no passage")]
            segments = await self._writer.candidates(question, hits, path.text, room)
            if not segments:
                return [path.closed("no passage supports a further segment, and hard_constraints drops all others")]
            scores = [self._writer.score(segment) for segment in segments]
        else:
            segments, scores = [await self._writer.alone(question, path.text, room)], [1.0]  # nothing to compare it with
        news = [path.grown(segment, score) for segment, score in zip(segments, scores, strict=True) if _is_new(segment, path.text)]
        return news or [path.closed()]

    def _finished(self, best: Path, told: list[str], sources: Mapping[str, Hit]) -> Answer:
        pieces = _pieces(best.segments, sources)
        _tell(told, best.segments, sources)
        notes = [best.remark] if best.remark else []
        if not best.ended:
            notes.append(f"the answer was stopped after depth={self._depth} segments")
        elif best.segments[-1].cut:
            notes.append(f"the answer was cut off at max_tokens={self._max_tokens}")
        count_confidence([token for segment in best.segments for token in segment.tokens])
        return Answer("".join(pieces), tuple(_citations(best.segments, pieces, sources)), tuple(sources.values()), notes=tuple(notes))


def _shared(paths: Sequence[Path]) -> list[Segment]:
    """The segments that all ``paths`` begin with: whatever path wins, they are part of the answer."""
    levels = zip(*(path.segments for path in paths), strict=False)
    return [level[0] for level in takewhile(lambda level: all(segment is level[0] for segment in level), levels)]


def _pieces(segments: Iterable[Segment], sources: Mapping[str, Hit]) -> list[str]:
    """Each segment as the user reads it, with its marker behind it. Markers that the model wrote itself would point anywhere."""
    texts = [(MARKER.sub(r"(\1)", segment.text), segment.hit) for segment in segments]
    return [f"{text} [{_number(hit, sources)}]" if hit else text for text, hit in texts]


def _citations(segments: Sequence[Segment], pieces: Sequence[str], sources: Mapping[str, Hit]) -> list[Citation]:
    found, end = [], 0
    for segment, piece in zip(segments, pieces, strict=True):
        end += len(piece)
        if segment.hit is not None:
            number = _number(segment.hit, sources)
            start = end - len(f"[{number}]")
            found.append(Citation(number, segment.hit.passage, start, end, segment.support, segment.support >= SUPPORTED))
    return found


def _number(hit: Hit, sources: Mapping[str, Hit]) -> int:
    return list(sources).index(hit.passage.id) + 1


def _tell(told: list[str], segments: Sequence[Segment], sources: Mapping[str, Hit]) -> None:
    """Emit those of ``segments`` that have not been ``told``, as the user reads them."""
    pieces = _pieces(segments, sources)
    for segment, piece in list(zip(segments, pieces, strict=True))[len(told) :]:
        emit(TextDelta(piece))
        if listening() and segment.tokens:
            emit(TokensWritten.of(segment.tokens))
        told.append(piece)


def _is_new(segment: Segment, answer: str) -> bool:
    """Whether ``segment`` says anything: a model that has finished writes nothing, or its last sentence again."""
    return bool(segment.text.strip()) and segment.text.strip() not in answer


def _spaced(before: str, text: str) -> str:
    """``text`` as it follows ``before``: a space between them where the script writes one and neither has it."""
    if not before:
        return text.strip()
    joined = before[-1].isspace() or text[:1].isspace() or ord(before[-1]) >= 0x2E80
    return f"{'' if joined else ' '}{text.rstrip()}"
