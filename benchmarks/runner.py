"""Runs benchmarks, each in a process of its own, and keeps the result of each that succeeds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.results import read_record
from rag.core.errors import ConfigError, GraftError, InputError

DATA = "DATA"
"""Among a benchmark's arguments: the folder given with --data."""
PATIENCE = 90.0
"""Seconds that a stopped benchmark has to end what it started; a model server takes half a minute."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What a benchmark is called with: for figures to be published, and only to try that it runs."""

    full: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()

    def arguments(self, quick: bool) -> tuple[str, ...]:
        """One of the two."""
        return self.quick if quick else self.full


class Runner:
    """``python -m PACKAGE.NAME --json FILE``, one after the other. ``failed`` says why, by name, after `run`."""

    def __init__(self, package: str, results: Path, data: Path | None) -> None:
        self.package = package
        self.results = results
        self.data = data
        self.failed: dict[str, str] = {}

    def run(self, benchmarks: Mapping[str, tuple[str, ...]], *, missing: bool = False) -> None:
        """Run each, with its arguments; ``missing``: only those without a result.

        Raises `ConfigError` before the first if one needs the data and none are given, `InputError` where the results cannot be written,
        and `KeyboardInterrupt` after Ctrl-C, SIGTERM or SIGHUP, once the running benchmark has ended.
        """
        chosen = {name: args for name, args in benchmarks.items() if not (missing and (self.results / f"{name}.json").exists())}
        needing = [name for name, arguments in chosen.items() if DATA in arguments]
        if needing and self.data is None:
            raise ConfigError(f"{', '.join(needing)}: the data are needed; add --data FOLDER, or name other benchmarks")
        if needing and self.data is not None and not self.data.is_dir():
            raise ConfigError(f"--data {self.data}: there is no such folder")
        try:
            self.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.results}: the folder of the results cannot be made ({error.strerror})") from error
        with _signals_interrupt():
            for name, arguments in chosen.items():
                print(f"── {name}", flush=True)
                reason = self._one(name, [str(self.data) if argument == DATA else argument for argument in arguments])
                if reason:
                    self.failed[name] = reason

    def _one(self, name: str, arguments: list[str]) -> str:
        """Why it failed, or "". Its file takes the place of the old one only if it ended well and wrote what it should."""
        new = self.results / f".{name}.{os.getpid()}.new"
        try:
            status = _call([sys.executable, "-m", f"{self.package}.{name}", *arguments, "--json", str(new)])
            if status:
                return f"it ended with exit code {status}"
            if not new.is_file():
                return "it ended well but wrote no result"
            try:
                read_record(new)
            except GraftError as error:
                return f"its result cannot be read: {error}"
            os.replace(new, self.results / f"{name}.json")
            return ""
        finally:
            new.unlink(missing_ok=True)


def _call(command: list[str]) -> int:
    """Exit status of ``command``, whose output passes through.

    It runs in a session of its own, so that Ctrl-C reaches it once, from here: a second one would stop it from ending its model server.
    """
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP do what Ctrl-C does, or the running benchmark would stay behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    caught = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores
    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
