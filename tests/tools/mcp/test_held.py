from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tools.mcp.held import Held


class Doors:
    """Opens contexts and keeps the book: "1", "2", …"""

    def __init__(self, waits: bool = False, error: Exception | None = None) -> None:
        self.waits = waits
        self.error = error
        self.log: list[str] = []
        self.tasks: list[object] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        name = f"{sum(line.startswith('open') for line in self.log) + 1}"
        self.log.append(f"open {name}")
        self.tasks.append(asyncio.current_task())
        try:
            if self.error is not None:
                raise self.error
            if self.waits:
                await asyncio.Event().wait()
            yield name
        finally:
            self.tasks.append(asyncio.current_task())
            self.log.append(f"left {name}")


def test_it_is_opened_once_shared_and_left_by_the_task_that_opened_it() -> None:
    doors = Doors()

    async def work() -> None:
        held = Held(doors.open, 5)
        assert await asyncio.gather(*(held.get() for _ in range(5))) == ["1"] * 5
        await held.close()

    asyncio.run(work())
    assert doors.log == ["open 1", "left 1"]
    assert len(set(map(id, doors.tasks))) == 1


def test_one_that_is_lost_is_opened_again_once_however_many_notice() -> None:
    doors = Doors()

    async def work() -> None:
        held = Held(doors.open, 5)
        first = await held.get()
        held.forget(first)
        assert await held.get() == "2"
        held.forget(first)  # a late caller of the first one
        assert await held.get() == "2"
        await held.close()

    asyncio.run(work())
    assert sorted(doors.log) == ["left 1", "left 2", "open 1", "open 2"]


def test_an_error_at_the_door_reaches_everybody_and_the_next_tries_again() -> None:
    doors = Doors(error=OSError("locked"))

    async def work() -> None:
        held = Held(doors.open, 5)
        errors = await asyncio.gather(held.get(), held.get(), return_exceptions=True)
        assert [str(error) for error in errors] == ["locked", "locked"]
        doors.error = None
        assert await held.get() == "2"
        await held.close()

    asyncio.run(work())


def test_a_door_that_does_not_open_is_given_up_and_cleaned_up() -> None:
    doors = Doors(waits=True)

    async def work() -> None:
        held = Held(doors.open, 0.05)
        with pytest.raises(TimeoutError):
            await held.get()
        await held.close()

    asyncio.run(work())
    assert doors.log == ["open 1", "left 1"]


def test_a_caller_who_gives_up_leaves_it_open_for_the_others() -> None:
    doors = Doors()

    async def work() -> None:
        held = Held(doors.open, 5)
        impatient = asyncio.create_task(held.get())
        other = asyncio.create_task(held.get())
        await asyncio.sleep(0)
        impatient.cancel()
        assert await other == "1"
        await held.close()

    asyncio.run(work())
    assert doors.log == ["open 1", "left 1"]
