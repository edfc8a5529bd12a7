"""``rag draw``: a picture of a pipeline file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def draw(
    pipeline: Annotated[Path, typer.Argument(help="Pipeline file (YAML).", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here: .svg, .mmd or .md (Mermaid).", show_default=False)
    ] = None,
) -> None:
    """Print a pipeline as Mermaid text, or write it as a picture.

    Example:  rag draw pipeline.yaml -o graph.svg
    """
    from rag.cli.console import err, write
    from rag.core.errors import InputError
    from rag.core.pipeline import Pipeline

    pipe = Pipeline.from_yaml(pipeline)
    try:
        text = pipe.draw(output)
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror})") from error
    if output is None:
        write(text)
    else:
        err().print(f"wrote {output}", soft_wrap=True, markup=False)
