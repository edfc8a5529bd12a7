"""``rag keys``: who may use a server, and for what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag.cli.options import JsonOption

if TYPE_CHECKING:
    from rag.serve.doors.keyfile import Entry

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Keys of `rag serve`, in a file without secrets: add, list, remove.")

NameArgument = Annotated[str, typer.Argument(help="Name of the key: a-z, A-Z, 0-9, '.', '_', '-'.", show_default=False)]
FileOption = Annotated[Path, typer.Option("--file", "-f", help="The key file.", show_default=False)]


@app.command()
def add(
    name: NameArgument,
    file: FileOption,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What it is for, one each time: ask (questions, search, models), write (documents, jobs), admin (adapters, metrics, the"
            " rest). None includes another. \\[default: ask]",
            show_default=False,
        ),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Days it is valid. \\[default: no end]", show_default=False)] = None,
) -> None:
    """Make a key and print it: once, for only a digest of it is kept. A running server takes it within a second.

    Example:  rag keys add web-app --file keys.json --scope ask --days 90
    """
    from rag.cli.console import err, write
    from rag.serve.doors.keyfile import KeyFile

    scopes = scope or ["ask"]
    end = None if days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    secret = KeyFile(file).add(name, scopes, end)
    write(f"{secret}\n")
    until = "without end" if end is None else f"until {_shown(end)}"
    err().print(
        f"added {name} to {file}, for {', '.join(dict.fromkeys(scopes))}, {until}; keep the line on stdout, it is not shown again"
        " (callers send it as 'Authorization: Bearer KEY')",
        soft_wrap=True,
        markup=False,
    )


@app.command("list")
def list_(file: FileOption, as_json: JsonOption = False) -> None:
    """List the keys: name, id (as logs show it), scopes, when it was made, when it ends. The keys themselves are not in the file.

    Example:  rag keys list --file keys.json
    """
    from rag.cli.console import err, write_json
    from rag.serve.doors.keyfile import KeyFile

    rows = [_account(entry) for entry in KeyFile(file).entries()]
    if as_json:
        write_json({"file": str(file), "keys": rows})
    elif rows:
        _show_table(rows)
    else:
        err().print(f"there are no keys in {file}; `rag keys add NAME --file {file}` makes one", soft_wrap=True, markup=False)


@app.command()
def remove(name: NameArgument, file: FileOption) -> None:
    """Take a key away. A running server refuses it within a second.

    Example:  rag keys remove web-app --file keys.json
    """
    from rag.cli.console import err
    from rag.serve.doors.keyfile import KeyFile

    entry = KeyFile(file).remove(name)
    err().print(f"removed {name} ({entry.id})", soft_wrap=True, markup=False)


def _account(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "id": entry.id,
        "scopes": list(entry.scopes),
        "created": _shown(entry.created),
        "expires": None if entry.expires is None else _shown(entry.expires),
        "expired": entry.expires is not None and entry.expires <= datetime.now(UTC),
    }


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _show_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from rag.cli.console import out, plain

    table = Table("name", "id", "scopes", "created", "expires", box=None, pad_edge=False)
    for row in rows:
        ends = f"{row['expires']} (expired)" if row["expired"] else row["expires"] or "never"
        table.add_row(*(Text(plain(cell)) for cell in (row["name"], row["id"], ", ".join(row["scopes"]), row["created"], ends)))
    out().print(table, soft_wrap=True)
