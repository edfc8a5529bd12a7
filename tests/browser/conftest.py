"""One headless Chromium, and one report to open in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rag.evaluate.breakdown import breakdown
from rag.evaluate.compare import Comparison
from rag.evaluate.report import write_report
from tests.browser.comparison import CONFIGURATIONS, RATES, SETTINGS, scripted

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox",  # it has none for root, which is who runs a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass  # without slots: the driver keeps its wrappers of bound methods as attributes
class Opened:
    """The report in a page, and what happened there that should not."""

    page: Page
    address: str
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def control(self, section: str, name: str) -> Locator:
        """The list of choices called ``name`` in a section."""
        return self.page.locator(f"#{section} label:has(> span:text-is('{name}')) select")

    def watch(self) -> None:
        """Note from now on messages, errors, dialogs and requests."""
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("dialog", self._asked)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _asked(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()


Open = Callable[..., Opened]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """For the package and not for the session: while the driver lives, its event loop runs in this thread."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("playwright is not installed (pip install playwright)")
    if found is None:
        _missing(f"there is no browser here: none of {', '.join(_NAMES)}")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(_ARGUMENTS))
        yield browser
        browser.close()


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="package")
def comparison() -> Comparison:
    return scripted()


@pytest.fixture(scope="package")
def report(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    groups = {"answerable": breakdown(comparison, "answerable")}
    write_report(comparison, file, configurations=CONFIGURATIONS, rates=RATES, settings=SETTINGS, groups=groups)
    return file


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Open]:
    """Opens the report, or another file, in a page of its own; options are those of a browser context."""
    contexts = []

    def visit(file: Path = report, **options: Any) -> Opened:
        context = browser.new_context(**options)
        contexts.append(context)
        opened = Opened(context.new_page(), file.as_uri())
        opened.watch()
        opened.page.set_default_timeout(10_000)
        opened.page.goto(opened.address)
        return opened

    yield visit
    for context in contexts:
        context.close()


@pytest.fixture
def opened(visit: Open) -> Iterator[Opened]:
    """The report on a wide screen. In no test may it say, ask for or load anything."""
    opened = visit(viewport={"width": 1200, "height": 900})
    yield opened
    assert opened.problems == []
    assert set(opened.requests) == {opened.address}
