from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import generators.prompts
from generators.prompts import render
from rag.core.errors import ConfigError

FIELDS = {"passages": "[1] a", "question": "why?"}


def test_fields_are_filled():
    text = render("cited", "en", **FIELDS)
    assert "[1] a" in text
    assert text.endswith("why?")
    assert not re.search(r"\{[a-z_]+\}", text)


@given(st.text(alphabet="{}question passages%$\\1"), st.text(alphabet="{}passages\\g<1>"))
def test_what_is_filled_in_is_not_expanded(passages, question):
    text = render("cited", "en", passages=passages, question=question)
    assert text.startswith(passages)
    assert text.endswith(question)


def test_braces_of_a_passage_stay():
    text = render("cited", "en", passages="{question} {unknown} {0} {{x}} {{ 7*7 }}", question="{passages}")
    assert "{question} {unknown} {0} {{x}} {{ 7*7 }}" in text
    assert text.endswith("{passages}")


def test_every_template_exists_in_both_languages_with_the_same_fields():
    folder = Path(str(files(generators.prompts)))
    templates = {str(file.relative_to(folder)): file.read_text(encoding="utf-8") for file in folder.rglob("*.txt")}
    names = {name.split(".")[0] for name in templates}
    assert {"cited", "direct", "unknown", "ircot/system"} <= names
    for name in names:
        found = {language: set(re.findall(r"\{([a-z_]+)\}", templates[f"{name}.{language}.txt"])) for language in ("en", "zh")}
        assert found["en"] == found["zh"]


@pytest.mark.parametrize("name", ["absent", "../prompts/cited", "/etc/passwd", "", "cited.en.txt"])
def test_a_template_that_does_not_exist(name):
    with pytest.raises(ConfigError, match="there is no prompt"):
        render(name, "en", question="why?")


def test_a_language_that_does_not_exist():
    with pytest.raises(ConfigError, match="language 'fr'"):
        render("direct", "fr", question="why?")


@pytest.mark.parametrize("fields", [{}, {"question": "q"}, {**FIELDS, "extra": "x"}])
def test_fields_must_match(fields):
    with pytest.raises(ConfigError, match="takes the fields"):
        render("cited", "en", **fields)
