from __future__ import annotations

import pytest

from generators.refusing import refusal
from rag.core.trace import TextDelta, listener, span
from rag.core.types import Answer


@pytest.mark.parametrize(("language", "text"), [("en", "I do not know."), ("zh", "我不知道。")])
def test_it_says_so_to_the_listener_the_trace_and_the_reader(language, text):
    heard: list[object] = []
    with span("answer") as here, listener(heard.append):
        assert refusal(language, "nothing was found") == Answer(text, refused=True, notes=("nothing was found",))
    assert heard == [TextDelta(text)]
    assert here.notes == ["nothing was found"]
