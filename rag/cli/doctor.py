"""``rag doctor``: is everything there that graft needs?"""

from __future__ import annotations

from dataclasses import asdict

import typer

from rag.cli.options import CorpusOption, JsonOption


def doctor(corpus: CorpusOption = None, as_json: JsonOption = False) -> None:
    """Check the installation and, with --corpus, every byte of a corpus. Exit code 1 if something is broken.

    Example:  rag doctor --corpus handbook
    """
    from rag.cli.checks import Check, all_checks
    from rag.cli.console import out, plain, write_json

    checks: list[Check] = list(all_checks(corpus))
    failed = [check.name for check in checks if check.status == "failed"]
    if as_json:
        write_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        from rich.table import Table
        from rich.text import Text

        colours = {"ok": "green", "note": "yellow", "failed": "bold red"}
        table = Table(show_header=False, box=None, pad_edge=False)
        for check in checks:
            table.add_row(Text(check.status, style=colours[check.status]), Text(check.name, style="bold"), Text(plain(check.detail)))
        out().print(table, soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def shadowed_rooms() -> list[tuple[str, str]]:
    """Rooms of graft that an import finds elsewhere, each with the file that is found."""
    from rag.cli.checks import shadowed_rooms as look

    return look()
