"""The room's public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import adapters
import rag
from adapters.methods import names


@pytest.mark.parametrize("name", names())
def test_every_method_is_exported_here_and_by_rag(name: str) -> None:
    assert getattr(adapters, name).__name__ == name
    assert getattr(rag, name) is getattr(adapters, name)


def test_the_face_is_exported_too() -> None:
    assert {"adapt", "load", "LoRAHub", "Registry", *names()} <= set(dir(adapters))
    assert rag.LoRAHub is adapters.LoRAHub
    assert rag.adapt is adapters.adapt


def test_an_unknown_name_lists_the_methods() -> None:
    with pytest.raises(AttributeError, match=r"there is no method 'LORAX'; known are: .*LoRA"):
        _ = adapters.LORAX


def test_options_are_read_without_torch() -> None:
    code = "import sys, adapters; adapters.LoRA(r=4); dir(adapters); sys.exit('torch' in sys.modules or 'peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
