"""``rag``: index documents, ask them, serve them.

Exit codes: 0 all went well; 1 a check failed, or an internal error; 2 something about the call, its inputs or its parts is wrong, and the
message says what; 130 stopped by Ctrl-C; 141 the reader of our output went away.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rag.cli import adapters, ask, compose, contexts, demo, doctor, draw, index, keys, mcp, mine, serve, train
from rag.cli import eval as evaluation
from rag.core.errors import GraftError, InputError

_STOPPED = 130
_PIPE_CLOSED = 141


class _Group(TyperGroup):
    """Turns every error into one line and an exit code, under the tests' runner as in a shell."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader of a pipe (`| head`) has seen enough
            raise typer.Exit(_PIPE_CLOSED) from None
        except KeyboardInterrupt:
            raise _failed("stopped", None, False, _STOPPED) from None
        except GraftError as error:
            raise _failed("error", error, ctx.params.get("debug", False), 2) from None
        except (typer.Exit, typer.Abort, typer.exceptions.TyperException):
            raise
        except OSError as error:  # a disk that is full, a folder that may not be written
            place = f"{error.filename}: " if error.filename is not None else ""
            raise _failed("error", InputError(f"{place}{error.strerror or error}"), ctx.params.get("debug", False), 2, error) from None
        except Exception as error:
            raise _failed("internal error", error, ctx.params.get("debug", False), 1) from None


def _failed(kind: str, error: Exception | None, debug: bool, code: int, cause: Exception | None = None) -> typer.Exit:
    from rag.cli.console import plain

    if error is None:
        typer.echo(kind, err=True)
        return typer.Exit(code)
    if debug:
        import traceback

        typer.echo("".join(traceback.format_exception(cause or error)), err=True)
    hint = " (run `rag --debug …` for the traceback)" if code == 1 and not debug else ""
    name = f"{type(error).__name__}: " if code == 1 else ""
    typer.echo(f"{kind}: {name}{plain(' '.join(str(error).split()))}{hint}", err=True)
    return typer.Exit(code)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import rag

        typer.echo(f"graft-rag {rag.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Give a frozen language model your documents: index them, ask, serve.

    Example:  rag index docs --out handbook && rag ask "How long may a suit be worn outside?" --corpus handbook
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # bars of libraries would run into ours
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


app.command()(index.index)
app.command()(ask.ask)
app.command()(demo.demo)
app.command()(serve.serve)
app.command()(mcp.mcp)
app.command("eval")(evaluation.evaluate)
app.command()(mine.mine)
app.command()(train.train)
app.command()(compose.compose)
app.add_typer(adapters.app, name="adapters")
app.add_typer(keys.app, name="keys")
app.add_typer(contexts.app, name="contexts")
app.command()(draw.draw)
app.command()(doctor.doctor)


def main() -> None:
    """The console script."""
    try:
        app(prog_name="rag")
    except SystemExit as end:
        if end.code not in (_STOPPED, _PIPE_CLOSED) and not _at_work():
            raise
        with suppress(OSError, ValueError):
            sys.stderr.flush()
            sys.stdout.flush()
        os._exit(int(end.code or 0))  # a model may still compute in a native thread, which would abort an orderly end or hold it up


def _at_work() -> bool:
    return any(thread.name.startswith("graft-") for thread in threading.enumerate())


if __name__ == "__main__":
    main()
