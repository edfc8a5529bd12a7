"""Small stand-ins for the heavy parts, shared by all tests of retrieval and by the processes they start."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

from rag.core.types import Document, Passage


class HashEncoder:
    """Each word has a fixed random direction; a text is the normalised sum. Cheap, exact, and words in common mean similarity."""

    def __init__(self, dim: int = 32, salt: str = "") -> None:
        self.dim = dim
        self.salt = salt
        self._directions: dict[str, np.ndarray] = {}

    @property
    def identity(self) -> str:
        return f"hash dim={self.dim} salt={self.salt}"

    def encode(self, texts: list[str], kind: Literal["query", "passage"] = "passage") -> np.ndarray:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split() or ["?"]:
                vectors[row] += self._direction(word)
            vectors[row] /= np.linalg.norm(vectors[row])
        return vectors

    def _direction(self, word: str) -> np.ndarray:
        if word not in self._directions:
            seed = hashlib.sha256(f"{self.salt}/{word}".encode()).digest()[:8]
            self._directions[word] = np.random.default_rng(int.from_bytes(seed, "big")).standard_normal(self.dim).astype(np.float32)
        return self._directions[word]


class LineChunker:
    """One passage per line."""

    identity = "lines"

    def chunk(self, document: Document) -> list[Passage]:
        passages, start = [], 0
        for line in document.text.split("\n"):
            if line.strip():
                passages.append(Passage(f"{document.id}#{len(passages)}", line, document.id, document.title, start, start + len(line)))
            start += len(line) + 1
        return passages


WORDS = [f"w{i}" for i in range(300)]


def words(seed: int, count: int = 20) -> str:
    """Text with a skewed vocabulary, as language has."""
    random = np.random.default_rng(seed)
    return " ".join(WORDS[int(i) % len(WORDS)] for i in random.zipf(1.3, count) - 1)


def document(i: int, version: int = 0, lines: int = 3) -> Document:
    """A document of a few lines; another version has other text under the same id."""
    text = "\n".join(f"{words(1000 * i + 10 * version + line)} v{version}" for line in range(lines))
    return Document(f"doc{i:04d}", text, title=f"Title {i % 7}", source=f"/src/{i}", metadata={"n": i, "even": i % 2 == 0})


def documents(count: int, version: int = 0, lines: int = 3) -> list[Document]:
    """The first ``count`` documents in one version."""
    return [document(i, version, lines) for i in range(count)]
