"""What training tells: an event for each step, and ``losses.jsonl``, the same line by line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rag.core.errors import AdapterDamaged

FILE = "losses.jsonl"


@dataclass(frozen=True)
class Event:
    """After ``step`` steps of ``total``. Step 0 tells the held-out loss before training."""

    step: int
    total: int
    loss: float | None
    """Mean over the step's answer tokens (language models) or rows, before the step was taken."""
    penalty: float | None
    """What the method added to it."""
    rate: float | None
    """The learning rate of the step."""
    gradient: float | None
    """Norm of the gradient before it was clipped."""
    held_out: float | None
    """Mean loss on held-out data, where it was measured."""
    tokens: int
    """Input tokens of the step, without padding."""
    seconds: float
    """Of the step, without evaluation and checkpoint."""

    @property
    def tokens_per_second(self) -> float:
        """How fast the step was."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


class Journal:
    """Events in the file ``losses.jsonl`` of ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE

    def begin(self, step: int) -> None:
        """Keep what was told up to ``step``: later lines belong to steps that a stopped run took after its last checkpoint."""
        kept = [event for event in self.events() if event.step <= step] if step else []
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        part.write_text("".join(_line(event) for event in kept), "utf-8")
        os.replace(part, self.file)

    def write(self, event: Event) -> None:
        """Add a line."""
        with self.file.open("a", encoding="utf-8") as opened:
            opened.write(_line(event))

    def events(self) -> Iterator[Event]:
        """All that was told; a last line that a kill cut off is left out. Raises `AdapterDamaged` for another line that is no event."""
        lines = self.file.read_text("utf-8").split("\n") if self.file.is_file() else []
        for number, line in enumerate(lines[:-1], start=1):
            try:
                yield Event(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise AdapterDamaged(f"{self.file}:{number} is not what was written: {error}") from error


def _line(event: Event) -> str:
    return json.dumps(asdict(event), sort_keys=True) + "\n"
