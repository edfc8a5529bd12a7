from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.core.errors import InputError
from rag.core.registry import configuration
from rag.core.types import Document
from retrievers.chunkers import MarkdownChunker

TEXT = """Intro.

# Handbook

## Suits

Worn for eight hours.

| Part | Hours |
|---|---|
| Helmet | 8 |

```python
# not a heading
x = 1
```

### Care
Wash it.

## Empty
## Boots
Worn daily.
"""
LINES = [
    "# A\n",
    "## B\n",
    "### C\n",
    "#\n",
    "Some text here. More of it.\n",
    "文字。",
    "```\n",
    "x = 1\n",
    "| a | b |\n",
    "|---|---|\n",
    "\n",
    "long" * 30,
    " ",
]
documents = st.one_of(st.text(alphabet=st.characters(), max_size=200), st.lists(st.sampled_from(LINES), max_size=40).map("".join))


def words(text: str) -> int:
    return len(text.split())


def chunks(text: str, title: str = "", **arguments: int) -> list[tuple[str, str]]:
    return [(p.title, p.text) for p in MarkdownChunker(**arguments).chunk(Document("d", text, title, format="markdown"))]


def test_sections_carry_their_path():
    found = chunks(TEXT, "Station")
    assert [title for title, _ in found] == [
        "Station",
        "Station › Handbook › Suits",
        "Station › Handbook › Suits › Care",
        "Station › Handbook › Empty",
        "Station › Handbook › Boots",
    ]
    assert found[1][1].startswith("# Handbook\n\n## Suits\n\nWorn")  # a heading without text goes with its first sub-section
    assert found[1][1].endswith("# not a heading\nx = 1\n```")
    assert found[3][1] == "## Empty"


def test_the_title_is_not_said_twice():
    assert [title for title, _ in chunks("# Suits\nText.\n## Care\nWash.", "Suits")] == ["Suits", "Suits › Care"]
    assert [title for title, _ in chunks("# Suits\nText.")] == ["Suits"]
    site = "Suits | Handbook"
    assert [title for title, _ in chunks("# Suits\nText.\n## Care\nWash.", site)] == [site, f"{site} › Care"]


def test_code_and_tables_stay_whole_where_they_fit():
    code = "```\n" + "a = 1. b = 2.\n\n" * 5 + "```"
    table = "| a | b |\n|---|---|\n" + "| One. | Two. |\n" * 5
    found = [p.text for p in MarkdownChunker(40, 1, words).chunk(Document("d", f"# T\n\nText. {'More words. ' * 12}\n\n{code}\n\n{table}"))]
    assert sum(code in text for text in found) == 1
    assert sum(table.strip() in text for text in found) == 1


def test_code_over_the_budget_is_cut_between_lines():
    found = [p.text for p in MarkdownChunker(6, 0, words).chunk(Document("d", "```\na = 1\nb = 2\nc = 3\nd = 4\n```"))]
    assert found == ["```\na = 1", "b = 2\nc = 3", "d = 4\n```"]


def test_a_long_section_is_cut_by_sentence_with_overlap():
    found = [p.text for p in MarkdownChunker(7, 1, words).chunk(Document("d", "# T\n\nOne is one. Two is two. Three is three."))]
    assert found == ["# T\n\nOne is one.", "One is one. Two is two.", "Two is two. Three is three."]


@given(documents, st.integers(1, 30), st.integers(0, 3))
@settings(max_examples=300)
def test_any_text_is_covered_in_order_and_within_the_budget(check, text, budget, overlap):
    check(MarkdownChunker(budget, min(overlap, budget - 1)), Document("d", text, "T", format="markdown", metadata={"n": 1}), budget)


def test_no_passage_crosses_a_heading_with_text_above_it():
    text = "".join(f"# H{i}\n\nText {i}.\n\n" for i in range(20))
    found = chunks(text)
    assert len(found) == 20
    assert all(body.count("# H") == 1 for _, body in found)


def test_bad_arguments_are_errors():
    with pytest.raises(InputError, match=r"^MarkdownChunker: max_tokens"):
        MarkdownChunker(0)


def test_identity_and_configuration():
    assert MarkdownChunker().identity == "MarkdownChunker(max_tokens=200, overlap=1)"
    assert configuration(MarkdownChunker(overlap=0)) == {"overlap": 0}
