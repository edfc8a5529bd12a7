"""The keeper as a process, with small commands for a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from generators.models import keeper
from tests.generators.models.processes import alive, ended, there

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")

FAMILY = """
import os, subprocess, sys, time
idle = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
pids = [subprocess.Popen([sys.executable, "-c", idle], start_new_session=own).pid for own in (False, True)]
print(os.getpid(), *pids, flush=True)
"""


def keep(log: Path | str, script: str, *, most: int = 10**6, kept: int = 3, term: float = 0.3) -> subprocess.Popen[bytes]:
    settings = [str(os.getpid()), str(term), str(log), str(most), str(kept)]
    command = [sys.executable, "-I", "-S", keeper.__file__, *settings, sys.executable, "-I", "-c", script]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def said(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if not line.startswith("---")]


def pids_in(log: Path, seconds: float = 10.0) -> list[int]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if log.exists() and said(log):
            return [int(word) for word in said(log)[0].split()]
        time.sleep(0.02)
    raise AssertionError("it said nothing")


@pytest.mark.parametrize(
    ("script", "status"),
    [("raise SystemExit(0)", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137), ("import os; os.abort()", 134)],
)
def test_it_ends_as_the_server_ends(tmp_path: Path, script: str, status: int) -> None:
    log = tmp_path / "log"
    assert keep(log, script).wait(20) == status
    assert log.read_text().startswith(keeper.STARTS.decode())
    assert log.read_text().endswith(f"--- the engine ended with status {status} ---\n")


def test_the_log_has_both_outputs_whole_and_is_its_owners_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert keep(log, "import os; os.write(1, b'one\\n' * 50_000); os.write(2, b'two\\n'); os.write(1, b'no end')").wait(20) == 0
    assert said(log)[:-1] == ["one"] * 50_000 + ["two"]
    assert "no end--- the engine ended" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_the_last_words_of_a_dead_server_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = keep(log, "import os; os.kill(os.getppid(), 19); os.write(1, b'word\\n' * 10_000); os._exit(5)")  # 19 stops the keeper
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until = time.monotonic() + 10
    while not (pids := children.read_text().split()) or alive(int(pids[0])):
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGCONT)
    assert process.wait(20) == 5
    assert said(log) == ["word"] * 10_000


@pytest.mark.parametrize("kept", [0, 2])
def test_the_log_turns_by_size_at_the_end_of_a_line(tmp_path: Path, kept: int) -> None:
    log, most = tmp_path / "log", 40_000
    assert keep(log, "for n in range(6000): print(f'{n:05d} ' + 'x' * 43)", most=most, kept=kept).wait(20) == 0
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", "log.1", "log.2"][: kept + 1]
    assert all(file.stat().st_size <= most + 100 for file in files)
    lines = [line for file in reversed(files) for line in said(file)]
    assert lines == [f"{number:05d} " + "x" * 43 for number in range(6000 - len(lines), 6000)]
    assert len(lines) >= (1000 if kept else 1)


def test_a_full_disk_costs_the_log_and_not_the_server(tmp_path: Path) -> None:
    done = tmp_path / "done"
    script = f"for n in range(5000): print('x' * 90)\nopen({str(done)!r}, 'w').write('whole')"
    assert keep("/dev/full", script).wait(20) == 0
    assert done.read_text() == "whole"


def test_what_the_server_leaves_behind_is_ended_before_the_keeper(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = keep(log, FAMILY + "os.kill(os.getpid(), 9)")
    assert process.wait(20) == 137
    pids = pids_in(log)
    assert len(pids) == 3
    assert not any(there(pid) for pid in pids)  # no zombies either


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_stop_is_polite_first(tmp_path: Path, stubborn: bool) -> None:
    log = tmp_path / "log"
    action = "signal.SIG_IGN" if stubborn else "lambda *_: (print('goodbye', flush=True), os._exit(7))"
    process = keep(log, FAMILY.replace("print(", f"import signal; signal.signal(15, {action}); print(") + "time.sleep(600)", term=0.5)
    pids = pids_in(log)
    began = time.monotonic()
    process.terminate()
    assert process.wait(20) == (137 if stubborn else 7)
    assert not stubborn or time.monotonic() - began >= 0.5
    assert ("goodbye" in said(log)) is not stubborn
    assert not any(there(pid) for pid in pids)


def test_without_its_parent_it_ends_all(tmp_path: Path) -> None:
    log = tmp_path / "log"
    start = (
        "import os, subprocess, sys\n"
        "settings = [sys.argv[1], str(os.getpid()), '0.3', sys.argv[2], '100000', '1']\n"
        "command = [sys.executable, '-I', '-S', *settings, sys.executable, '-c', sys.argv[3]]\n"
        "print(subprocess.Popen(command, start_new_session=True, stdout=2).pid, flush=True)\n"
        "import time; time.sleep(600)"
    )
    parent: Any = subprocess.Popen(
        [sys.executable, "-c", start, keeper.__file__, str(log), FAMILY + "time.sleep(600)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with parent:
        kept = int(parent.stdout.readline())
        pids = [kept, *pids_in(log)]
        time.sleep(2 * keeper._LOOK)  # it looks at its parent meanwhile
        assert all(alive(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
    assert ended(pids)
