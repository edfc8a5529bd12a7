"""What the command line says about a server that is started too."""

from __future__ import annotations

import pytest

from generators.models.server import check_options, command_of
from rag.core.errors import InputError
from rag.serve.engine import engine_options


def test_options_become_flags() -> None:
    given = ["max-model-len=4096", "enforce-eager=true", "enable_prefix_caching=False", 'hf-overrides={"a": "b=c"}']
    given += ["lora-target-modules=q_proj", "lora-target-modules=k_proj"]
    options = engine_options(given)
    assert options == {
        "max-model-len": "4096",
        "enforce-eager": True,
        "enable-prefix-caching": False,
        "hf-overrides": '{"a": "b=c"}',
        "lora-target-modules": ["q_proj", "k_proj"],
    }
    check_options(options)
    words = command_of("/folder", "mine", 8001, False, options)
    assert [words[words.index("--max-model-len") + 1], words[words.index("--hf-overrides") + 1]] == ["4096", '{"a": "b=c"}']
    assert {"--enforce-eager", "--no-enable-prefix-caching"} < set(words)
    assert words[words.index("--lora-target-modules") + 1 :][:2] == ["q_proj", "k_proj"]
    assert engine_options([]) == {}


@pytest.mark.parametrize("text", ["", "=", "max-model-len", "max-model-len=", "=4096"])
def test_what_is_no_option(text: str) -> None:
    with pytest.raises(InputError, match="NAME=VALUE, such as max-model-len=4096"):
        engine_options([text])


@pytest.mark.parametrize("text", ["dtype=--port", "port=1", "model=/etc", "$(id)=1", "a;b=1", "dtype=a\nb"])
def test_what_the_supervisor_would_refuse(text: str) -> None:
    with pytest.raises(InputError):
        check_options(engine_options([text]))
