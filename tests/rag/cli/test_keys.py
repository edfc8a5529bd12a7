from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from rag.cli import keys, main
from rag.serve.doors.keyfile import KeyFile, digest
from rag.serve.doors.keys import Ring

app = typer.Typer(cls=main.app.info.cls)
app.callback()(main.options)
app.add_typer(keys.app, name="keys")


def rag_keys(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["keys", *(str(argument) for argument in arguments)], prog_name="rag")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.mark.parametrize("command", ["add", "list", "remove"])
def test_help_has_an_example(command: str) -> None:
    result = rag_keys(command, "--help")
    assert (result.exit_code, f"Example:  rag keys {command}" in result.stdout) == (0, True)


def test_a_key_stands_alone_on_stdout_and_works(file: Path) -> None:
    result = rag_keys("add", "web", "--file", file)
    assert result.exit_code == 0
    secret = result.stdout.removesuffix("\n")
    assert secret.split() == [secret]
    assert secret not in result.stderr
    assert f"added web to {file}, for ask, without end" in result.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = Ring(KeyFile(file)).find(secret.encode())
    assert found is not None
    assert (found.name, found.scopes, found.expires) == ("web", ("ask",), None)


def test_scopes_and_days(file: Path) -> None:
    result = rag_keys("add", "ops", "--file", file, "--scope", "write", "--scope", "admin", "--days", "30")
    assert (result.exit_code, "for write, admin, until 20" in result.stderr) == (0, True)
    (entry,) = KeyFile(file).entries()
    assert entry.scopes == ("write", "admin")
    assert entry.expires is not None
    assert abs(entry.expires - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=1)


def test_list_shows_everything_but_secrets(file: Path) -> None:
    secrets = [rag_keys("add", name, "--file", file, "--days", "2").stdout.strip() for name in ("web", "app")]
    content = json.loads(file.read_text())
    content["keys"][1]["expires"] = "2026-01-01T00:00:00Z"
    file.write_text(json.dumps(content))
    result = rag_keys("list", "--file", file)
    head, web, old = result.stdout.splitlines()
    assert head.split() == ["name", "id", "scopes", "created", "expires"]
    first, second = KeyFile(file).entries()
    assert web.split()[:3] == ["web", first.id, "ask"]
    assert "(expired)" not in web
    assert old.rstrip().endswith("2026-01-01T00:00:00Z (expired)")
    listed = rag_keys("list", "--file", file, "--json")
    account = json.loads(listed.stdout)
    assert (account["file"], account["keys"][1]["id"], [row["expired"] for row in account["keys"]]) == (str(file), second.id, [False, True])
    for hidden in (*secrets, *(digest(secret.encode()) for secret in secrets)):
        assert hidden not in result.output + listed.output


def test_remove_and_an_empty_file(file: Path) -> None:
    rag_keys("add", "web", "--file", file)
    result = rag_keys("remove", "web", "--file", file)
    assert (result.exit_code, result.stdout, result.stderr.startswith("removed web (key_")) == (0, "", True)
    empty = rag_keys("list", "--file", file)
    assert (empty.exit_code, empty.stdout, "there are no keys" in empty.stderr) == (0, "", True)
    assert json.loads(rag_keys("list", "--file", file, "--json").stdout)["keys"] == []


def test_what_goes_wrong_is_one_line_and_2(file: Path, tmp_path: Path) -> None:
    rag_keys("add", "web", "--file", file)
    before = file.read_bytes()
    (tmp_path / "other.json").write_text("{}")
    for arguments, says in (
        (("add", "web", "--file", file), "already"),
        (("add", "../x", "--file", file), "a key's name has"),
        (("add", "x", "--file", file, "--scope", "root"), "scopes ask, write, admin, not root"),
        (("add", "x", "--file", tmp_path / "other.json"), "is no key file"),
        (("remove", "app", "--file", file), "there are: web"),
        (("remove", "app", "--file", tmp_path / "nowhere.json"), "there is no key file"),
        (("list", "--file", tmp_path / "nowhere.json"), "rag keys add"),
    ):
        result = rag_keys(*arguments)
        assert (result.exit_code, result.stdout, says in result.stderr, result.stderr.count("\n")) == (2, "", True, 1), result.stderr
    for arguments in (("add", "x"), ("add", "x", "--file", file, "--days", "0"), ("add", "x", "--file", file, "--days", "-1")):
        assert rag_keys(*arguments).exit_code == 2
    assert file.read_bytes() == before
