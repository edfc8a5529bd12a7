from __future__ import annotations

from generators.continuing import begun
from rag.core.types import Message
from tests.generators.conftest import ScriptedModel

CHAT = [Message("system", "Be brief."), Message("user", "Who?")]


def test_a_begun_answer_is_the_assistants_last_turn_or_shown_to_the_model():
    able = ScriptedModel(capabilities=frozenset({"prefix"}))
    assert begun(able, CHAT, "It is ") == [*CHAT, Message("assistant", "It is ")]
    assert begun(ScriptedModel(capabilities=frozenset()), CHAT, "It is ") == [CHAT[0], Message("user", "Who?\nIt is ")]
    assert begun(able, CHAT, "") == CHAT
