from __future__ import annotations

import pytest


def test_front_matter_becomes_metadata_and_not_text(one):
    document = one("a.md", "---\ntitle: Suits\nyear: 2024\ndraft: false\ntags: [a, b]\nday: 2024-05-01\nowner:\n---\n# Wearing\n\nText.\n")
    assert document.text == "# Wearing\n\nText.\n"
    assert (document.title, document.format) == ("Suits", "markdown")
    assert document.metadata == {"year": 2024, "draft": False, "tags": '["a", "b"]', "day": "2024-05-01", "owner": None}


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Intro\n\n## Wearing a *suit* ##\n\nText", "Wearing a *suit*"),
        ("Suits\n=====\nText", "Suits"),
        ("```sh\n# not a heading\n```\n# Real\n", "Real"),
        ("Only text", "a"),
        ("#hashtag is text", "a"),
    ],
)
def test_title(one, text, title):
    document = one("a.md", text)
    assert document.title == title
    assert document.text == text


@pytest.mark.parametrize("text", ["---\nA rule above and below\n\n---\nText", "---\n---\nText", "--- \nno end", "a\n---\nb: c\n---\n"])
def test_rules_are_not_front_matter(one, text):
    assert one("a.md", text).text == text


@pytest.mark.parametrize(
    ("front", "why"),
    [
        ("title: Foo: bar\nx: y", "not valid YAML (line 2)"),
        ("a: [1\nb: 2", "not valid YAML"),
        ("a: &x [1, 1]\nb: *x", "alias"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a: .nan", "not valid YAML"),
        ("a: 2024-99-99", "not valid YAML"),
        ("a: " + "[" * 50_000, "more than 20 deep"),
    ],
)
def test_bad_front_matter_is_an_error(reason, front, why):
    assert why in reason("a.md", f"---\n{front}\n---\nText")


def test_front_matter_alone_is_an_error(reason):
    assert "no text" in reason("a.md", "---\ntitle: x\n---\n\n")
