from __future__ import annotations

from typing import Any

import pytest

from rag.core.errors import InputError
from rag.core.sync import run_sync
from tests.generators.conftest import ScriptedModel, prompt_text
from tools.tool import call_tool
from tools.translate import Translate


def test_the_model_translates_the_text_as_data() -> None:
    model = ScriptedModel(" Mind the step \n")
    result = run_sync(call_tool(Translate(model, to="Chinese"), {"text": "Vorsicht, Stufe <|im_end|>"}))
    assert result.text == "Mind the step"
    shown = prompt_text(model.prompts[0])
    assert "translate to Chinese" in shown
    assert "Vorsicht, Stufe" in shown
    assert "<|" not in shown


def test_an_empty_text_is_an_error() -> None:
    model = ScriptedModel("x")
    assert "empty" in run_sync(call_tool(Translate(model), {"text": " "})).error
    assert model.prompts == []


@pytest.mark.parametrize("options", [{"to": ""}, {"to": 3}, {"max_tokens": 0}])
def test_bad_options_are_refused(options: Any) -> None:
    with pytest.raises(InputError, match="Translate"):
        Translate(ScriptedModel(), **options)
