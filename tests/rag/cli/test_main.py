from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rag.core.errors import ConfigError
from tests.rag.cli.conftest import Rag

COMMANDS = ("index", "ask", "demo", "serve", "draw", "doctor", "train", "compose")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example(rag: Rag, command: str) -> None:
    result = rag(*filter(None, [command]), "--help")
    assert result.exit_code == 0
    assert f"Example:  rag {command}".strip() in result.stdout


def test_version(rag: Rag) -> None:
    import rag as package

    assert rag("--version").stdout == f"graft-rag {package.__version__}\n"


def fail(error: BaseException) -> object:
    def run(*_: object) -> None:
        raise error

    return run


def test_an_error_of_graft_is_one_line_and_2(rag: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.cli.checks.all_checks", fail(ConfigError("there is\nno \x1b[31mred")))
    result = rag("doctor")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "error: there is no �[31mred\n")
    result = rag("--debug", "doctor")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "rag.core.errors.ConfigError" in result.stderr


def test_anything_else_is_an_internal_error_and_1(rag: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.cli.checks.all_checks", fail(ZeroDivisionError("oops")))
    result = rag("doctor")
    assert (result.exit_code, result.stderr) == (1, "internal error: ZeroDivisionError: oops (run `rag --debug …` for the traceback)\n")
    result = rag("--debug", "doctor")
    assert "Traceback" in result.stderr
    assert "ZeroDivisionError: oops" in result.stderr


def test_what_the_system_refuses_is_named_without_being_called_internal(rag: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.cli.checks.all_checks", fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "big.bin")))
    result = rag("doctor")
    assert (result.exit_code, result.stderr) == (2, "error: big.bin: No space left on device\n")
    assert "OSError" in rag("--debug", "doctor").stderr


def test_a_full_disk_behind_stdout_is_an_error(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        result = subprocess.run([sys.executable, "-m", "rag.cli.main", "doctor", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (2, "error: No space left on device\n")


def test_ctrl_c_is_130(rag: Rag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.cli.checks.all_checks", fail(KeyboardInterrupt()))
    result = rag("doctor")
    assert (result.exit_code, result.stderr) == (130, "stopped\n")


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["ask", "--nothing"], ["index", "docs"], ["ask", "q", "-k", "0"], ["ask", "q", "-k", "1.5"]]
)
def test_usage_errors_are_2(rag: Rag, arguments: list[str]) -> None:
    result = rag(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def test_a_closed_pipe_is_silent(tmp_path: Path) -> None:
    many = "".join(f"  n{number}: {{type: First}}\n" for number in range(900))
    edges = "".join(f"  - n{number} -> n{number + 1}\n" for number in range(899))
    (tmp_path / "p.yaml").write_text(f"nodes:\n{many}edges:\n{edges}")
    read, write = os.pipe()
    command = [sys.executable, "-m", "rag.cli.main", "draw", str(tmp_path / "p.yaml")]
    process = subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    os.close(read)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (141, b"")


def test_ctrl_c_while_a_model_writes_is_130_and_silent(shelf: Path, tmp_path: Path) -> None:
    code = f"""
import signal, sys, threading, time
from rag.cli import ask
from rag.cli.main import main
from tests.rag.serve.parts import Scripted
model = Scripted("one two three", hangs_at=2)
ask.make_model = lambda *_: model
def interrupt():
    while not model.prompts:
        time.sleep(0.01)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
sys.argv = ["rag", "ask", "suit", "--corpus", {str(shelf)!r}]
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, cwd=Path(__file__).parents[3]
    )
    assert (result.returncode, result.stderr) == (130, "stopped\n")
    assert "one two three" not in result.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rag.cli.main import app\n"
        "try:\n    app(['--help'], prog_name='rag')\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'faiss', 'fastapi', 'pydantic', 'httpx', 'yaml') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_no_colour_codes_away_from_a_terminal(shelf: Path) -> None:
    command = [sys.executable, "-m", "rag.cli.main", "index", str(shelf.parent / "docs"), "--out", str(shelf)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "unchanged" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr
