from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from rag.core.errors import InputError
from rag.core.sync import run_sync
from tools.calendar import Calendar


@pytest.mark.parametrize(
    ("day", "sentence"), [("2023-01-30", "Today is Monday, January 30, 2023."), ("2024-02-29", "Today is Thursday, February 29, 2024.")]
)
def test_the_date_is_said_as_in_the_paper(day: str, sentence: str) -> None:
    assert run_sync(Calendar(day).acall({})) == sentence


def test_without_a_date_it_is_the_day_of_the_machine() -> None:
    before = run_sync(Calendar(date.today().isoformat()).acall({}))
    assert run_sync(Calendar().acall({})) in (before, run_sync(Calendar(date.today().isoformat()).acall({})))


@pytest.mark.parametrize("today", ["30.1.2023", "2023-02-30", "", 20230130, date(2023, 1, 30)])
def test_what_is_no_iso_date_in_text_is_refused(today: Any) -> None:
    with pytest.raises(InputError, match="in quotes such as '2023-01-30'"):
        Calendar(today)
