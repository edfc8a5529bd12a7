"""The page in a real browser. In no test may it complain, or ask another server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Opened
from tests.browser.playground.parts import WIDE, Visit, served
from tests.rag.serve.parts import listening

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listening(served(tmp_path_factory.mktemp("playground"))) as found:
        yield found


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Opens the page in a context of its own; options are the context's."""
    opened: list[Opened] = []

    def visit(at: str = address, **options: Any) -> Opened:
        context = browser.new_context(**{"viewport": WIDE, **options})
        one = Opened(context.new_page(), at)
        opened.append(one)
        one.watch()
        one.page.set_default_timeout(5_000)
        one.page.goto(at)
        return one

    yield visit
    for one in opened:
        one.page.context.close()


@pytest.fixture
def opened(visit: Visit) -> Iterator[Opened]:
    """The page on a wide screen, with its models. In no test may it complain, or ask another server."""
    opened = visit()
    opened.page.locator("#first option").first.wait_for(state="attached")
    yield opened
    assert opened.problems == []
    assert {request.startswith((f"{opened.address}/", "data:")) for request in opened.requests} == {True}
