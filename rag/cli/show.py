"""Answers, sources and traces for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from rag.cli.console import err, out, plain, write
from rag.core.sync import run_sync
from rag.core.trace import Retrieved, TextDelta, ToolCalled
from rag.core.types import Answer
from rag.serve.describe import as_answer, describe_answer

if TYPE_CHECKING:
    from rag.core.engine import Run
    from rag.core.pipeline import Pipeline

_SNIPPET = 160


def stream_answer(pipeline: Pipeline, question: str, inputs: dict[str, Any]) -> tuple[Run, Answer]:
    """Run the pipeline and print the answer's text as it is written. Raises the run's error, after a line end."""
    streamed: list[str] = []
    waiting = err().status("reading …")

    async def follow() -> Run:
        async for event in pipeline.astream(question, **inputs):
            if isinstance(event, TextDelta):
                waiting.stop()
                write(event.text)
                streamed.append(event.text)
            elif step := _step(event):
                waiting.update(step)
        return event  # type: ignore[no-any-return]

    waiting.start()  # shows nothing unless stderr is a terminal
    try:
        run = run_sync(follow())  # Ctrl-C here cancels the run
    finally:
        waiting.stop()
    sent = "".join(streamed)
    if not run.ok and sent:
        write("\n")
    answer = as_answer(run.value)
    if answer.text.startswith(sent):
        write(answer.text[len(sent) :] + "\n")
    else:
        write(f"\n\n{answer.text}\n")  # revised after it was streamed
    return run, answer


def _step(event: object) -> str:
    """What a method does while no text comes, for the waiting line."""
    if isinstance(event, Retrieved):
        return f"{len(event.hits)} passages for “{escape(snippet(event.query))}” …"
    if isinstance(event, ToolCalled):
        return f"{escape(plain(event.tool))}: {escape(snippet(event.error or event.output))} …"
    return ""


def show_sources(answer: Answer) -> None:
    """The numbered sources, which of them were cited and whether the citation holds, and the notes."""
    from rich.text import Text

    screen = out()
    if answer.sources:
        screen.print()
        screen.print(Text("Sources", style="bold"))
    for number, hit in enumerate(answer.sources, 1):
        passage = hit.passage
        line = Text(f" [{number}] ", style="bold cyan")
        line.append(plain(passage.title or passage.document or passage.id), style="bold")
        line.append(f"  {plain(passage.document)}  score {hit.score:.4g}", style="dim")
        line.append_text(_citation_mark(answer, number))
        screen.print(line, soft_wrap=True)
        screen.print(Text(f"     {snippet(passage.text)}", style="dim"), soft_wrap=True)
    for note in answer.notes:
        screen.print(Text(f"note: {plain(note)}", style="yellow"), soft_wrap=True)


def _citation_mark(answer: Answer, number: int) -> Any:
    from rich.text import Text

    citations = [citation for citation in answer.citations if citation.number == number]
    if not citations:
        return Text("")
    if all(citation.valid for citation in citations):
        return Text("  cited, valid", style="green")
    return Text("  cited, not supported" if not any(c.valid for c in citations) else "  cited, partly supported", style="red")


def snippet(text: str) -> str:
    """The beginning of ``text`` on one line."""
    line = plain(" ".join(text.split()))
    return line if len(line) <= _SNIPPET else f"{line[: _SNIPPET - 1]}…"


def show_trace(run: Run) -> None:
    """The span tree, on stderr."""
    sys.stdout.flush()
    err().print(f"\n{plain(str(run.trace))}", soft_wrap=True, markup=False, style="dim")


def answer_json(question: str, run: Run, trace: bool) -> dict[str, Any]:
    """All of an answer as one object. Raises the run's error."""
    answer = as_answer(run.value)
    counters = {name: int(run.trace.total(name)) for name in ("calls", "retrievals", "prompt_tokens", "generated_tokens")}
    data = {
        "question": question,
        "answer": answer.text,
        **describe_answer(answer),
        "usage": counters,
        "seconds": round(run.trace.seconds, 3),
    }
    return {**data, "trace": run.trace.to_dict()} if trace else data
