"""Toolformer's calendar (Schick et al. 2023, section 3): today's date, without any input."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from rag.core.errors import InputError
from rag.core.registry import component

# Not from strftime, which writes the names in the language of the machine.
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")


@component
class Calendar:
    """Says "Today is Monday, January 30, 2023."; ``today`` is an ISO date such as "2023-01-30", the machine's own date if None."""

    name = "Calendar"
    description = "tells today's date; it takes no input"
    schema: Mapping[str, Any] = {"type": "object", "properties": {}, "examples": [{}]}

    def __init__(self, today: str | None = None) -> None:
        try:
            self._fixed = None if today is None else date.fromisoformat(today)
        except (TypeError, ValueError):
            raise InputError(f"Calendar: today is a date in quotes such as '2023-01-30', not {today!r}") from None
        self.today = today

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        """Today's date as a sentence."""
        day = self._fixed or date.today()
        return f"Today is {_DAYS[day.weekday()]}, {_MONTHS[day.month - 1]} {day.day}, {day.year}."
