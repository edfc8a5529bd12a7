"""What every benchmark prints and writes: rows of one shape, as a table and, with ``--json FILE``, as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``ratio`` is value / peer_value, both from the same run; ``peer`` says what it is held against."""

    benchmark: str
    case: str
    metric: str
    value: float
    unit: str = ""
    peer: str = ""
    peer_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """``value / peer_value``, or None without a peer."""
        return self.value / self.peer_value if self.peer_value else None


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser that knows ``--json FILE``."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too")
    return result


def report(rows: Sequence[Row], json_file: Path | None) -> None:
    """Print ``rows`` as a table and write them to ``json_file`` if one is given."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a log has no width: nothing may be cut
    table = Table(title=rows[0].benchmark if rows else None)
    for name in ("case", "metric", "value", "unit", "peer", "peer value", "ratio"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("value", "peer value", "ratio") else "left")
    for row in rows:
        peer_value = "" if row.peer_value is None else _short(row.peer_value)
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        table.add_row(row.case, row.metric, _short(row.value), row.unit, row.peer, peer_value, ratio)
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(row) | {"ratio": row.ratio} for row in rows], indent=1) + "\n", "utf-8")


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
