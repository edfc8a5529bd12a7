"""Options that several commands share, and the model they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rag.core.errors import ConfigError

if TYPE_CHECKING:
    from rag.core.protocols import LanguageModel

Engine = Literal["local", "vllm", "openai"]
RetrieverKind = Literal["hybrid", "bm25", "dense"]

CorpusOption = Annotated[Path | None, typer.Option("--corpus", "-c", help="Folder that `rag index` wrote.", show_default=False)]
EngineOption = Annotated[
    Engine | None,
    typer.Option(
        help="Where the model runs: in this process, on a vLLM server, or behind an OpenAI-compatible address. \\[default: local]"
    ),
]
UrlOption = Annotated[str | None, typer.Option(help="Address of the server, such as http://localhost:8000/v1.", show_default=False)]
ModelOption = Annotated[str | None, typer.Option("--model", "-m", help="Name or folder of the model.", show_default=False)]
KeyOption = Annotated[str | None, typer.Option(help="Environment variable that holds the key of the model's server.", show_default=False)]
KOption = Annotated[int | None, typer.Option("-k", "--k", min=1, max=100, help="Passages the model reads. \\[default: 4]")]
RetrieverOption = Annotated[
    RetrieverKind | None, typer.Option(help="How passages are found. \\[default: hybrid, or bm25 if the corpus has no vectors]")
]
MaxTokensOption = Annotated[int | None, typer.Option(min=1, max=100_000, help="Length of an answer in tokens. \\[default: 256]")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def make_model(engine: Engine | None, url: str | None, model: str | None, key_env: str | None) -> LanguageModel:
    """The model that the options name; nothing is loaded or connected yet. Raises `ConfigError` if they do not fit together."""
    if engine in (None, "local"):
        if url is not None or key_env is not None:
            raise ConfigError("--url and --model-key-env belong to a server: add --engine vllm or --engine openai")
        from generators.models.local import Local

        return Local(model or "smollm2")
    if engine == "vllm":
        from generators.models.vllm import VLLM

        return VLLM(url or "http://localhost:8000/v1", model, api_key_env=key_env)
    if url is None or model is None:
        raise ConfigError("--engine openai needs --url and --model, such as --url https://api.openai.com/v1 --model gpt-4o-mini")
    from generators.models.openai_compatible import OpenAICompatible

    if key_env is None:
        return OpenAICompatible(url, model)
    return OpenAICompatible(url, model, api_key_env=key_env)


def refuse_with_pipeline(**given: object) -> None:
    """Raise `ConfigError` if an option was given that a pipeline file decides."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if names:
        raise ConfigError(f"{', '.join(names)}: the pipeline file decides this; leave it out, or leave the file out")
