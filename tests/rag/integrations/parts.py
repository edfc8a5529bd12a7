"""A corpus for the components of other toolkits."""

from __future__ import annotations

from pathlib import Path

from rag.core.types import Document
from retrievers.corpus import Corpus

QUERY = "How long may a suit be worn?"


def corpus(folder: Path) -> Corpus:
    made = Corpus.create(folder / "corpus", encoder=None)
    made.add(
        [
            Document("a.md", "A suit may be worn for six hours.", metadata={"lang": "en", "year": 2020}),
            Document("b.md", "A suit is checked before it is worn.", metadata={"lang": "en", "year": 2024}),
            Document("c.md", "Where is the suit? In the lock.", metadata={"lang": "en", "year": 2022}),
            Document("d.md", "Ein suit ist ein Anzug.", metadata={"lang": "de", "year": 2021}),
            Document("e.md", "Water is made from ice.", metadata={"lang": "en", "year": 2023}),
        ]
    )
    return made
