"""The public names: lazy, complete, and guarded against foreign modules of the same name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rag


@pytest.mark.parametrize("name", rag.__all__)
def test_every_public_name_resolves_to_what_it_says(name: str) -> None:
    assert getattr(rag, name).__name__.rpartition(".")[2] == name


def test_components_are_registered_under_their_public_names() -> None:
    from rag.core.registry import registered

    for name in rag.COMPONENTS:
        assert registered(name) is getattr(rag, name)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Retriver'; public names are: .*Retriever"):
        _ = rag.Retriver


@pytest.mark.parametrize("room", ["tools", "retrievers", "generators"])
def test_a_foreign_module_that_shadows_a_room_is_named(room: str, tmp_path: Path) -> None:
    (tmp_path / f"{room}.py").write_text("x = 1\n")
    code = f"import rag\nrag._ROOMS['Probe'] = '{room}.probe'\nfrom rag import Probe"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"graft needs its own package '{room}', but Python found {tmp_path / (room + '.py')} first" in result.stderr
