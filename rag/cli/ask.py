"""``rag ask``: one question, or one after the other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag.cli.options import (
    CorpusOption,
    EngineOption,
    JsonOption,
    KeyOption,
    KOption,
    MaxTokensOption,
    ModelOption,
    RetrieverOption,
    UrlOption,
    make_model,
    refuse_with_pipeline,
)
from rag.core.errors import ConfigError, GraftError, InputError

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline


def ask(
    question: Annotated[
        str | None, typer.Argument(help="The question; '-' reads it from stdin; none asks in turn on a terminal.", show_default=False)
    ] = None,
    corpus: CorpusOption = None,
    pipeline: Annotated[Path | None, typer.Option(help="Pipeline file to ask instead of the default one.", show_default=False)] = None,
    engine: EngineOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    model_key_env: KeyOption = None,
    k: KOption = None,
    retriever: RetrieverOption = None,
    condition: Annotated[
        list[str] | None,
        typer.Option("--filter", help="Only passages whose metadata agree: lang=en, 'year>=2020'. Repeatable.", show_default=False),
    ] = None,
    max_tokens: MaxTokensOption = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show each step with its time and counters.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from a corpus, with checked citations.

    Example:  rag ask "How long may a suit be worn outside?" --corpus handbook
    """
    from rag.cli.conditions import parse_conditions

    filter = parse_conditions(condition or ())
    inputs = {"filter": filter} if filter else {}
    if pipeline is not None:
        refuse_with_pipeline(
            corpus=corpus, engine=engine, url=url, model=model, model_key_env=model_key_env, k=k, retriever=retriever, max_tokens=max_tokens
        )
        from rag.core.pipeline import Pipeline

        pipe = Pipeline.from_yaml(pipeline)
    elif corpus is not None:
        pipe = _default(corpus, make_model(engine, url, model, model_key_env), retriever, k, max_tokens)
    else:
        raise ConfigError("name what to ask: --corpus FOLDER (from `rag index`) or --pipeline FILE")
    if question is None and _on_terminal() and not as_json:
        _in_turn(pipe, inputs, trace)
        return
    _ask(pipe, _text(question), inputs, trace, as_json)


def _default(corpus: Path, model: Any, retriever: Any, k: int | None, max_tokens: int | None) -> Pipeline:
    from rag.cli.default_pipeline import build, retriever_for
    from retrievers.corpus import Corpus

    shelf = Corpus.open(corpus)
    return build(shelf, model, retriever or retriever_for(shelf), k or 4, max_tokens or 256)


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _text(given: str | None) -> str:
    question = sys.stdin.read() if given is None or given == "-" else given
    try:
        question.encode()
    except UnicodeEncodeError:
        raise InputError("the question is not valid text in this terminal's encoding; use UTF-8") from None
    if not question.strip():
        raise InputError("the question is empty")
    return question.strip()


def _ask(pipe: Pipeline, question: str, inputs: dict[str, Any], trace: bool, as_json: bool) -> None:
    from rag.cli.console import write_json
    from rag.cli.show import answer_json, show_sources, show_trace, stream_answer

    if as_json:
        write_json(answer_json(question, pipe.explain(question, **inputs), trace))
        return
    run, answer = stream_answer(pipe, question, inputs)
    show_sources(answer)
    if trace:
        show_trace(run)


def _in_turn(pipe: Pipeline, inputs: dict[str, Any], trace: bool) -> None:
    from rag.cli.console import err

    err().print("Ask; an empty line or Ctrl-D ends.", style="dim")
    while True:
        try:
            question = input("\n> ").strip()
        except EOFError:
            return
        if not question:
            return
        try:
            _ask(pipe, question, inputs, trace, False)
        except GraftError as error:  # the next question may do better
            typer.echo(f"error: {error}", err=True)
