"""Every public component goes into a pipeline file and comes back as it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rag
from rag import Pipeline
from rag.core.registry import configuration, registered

URL = "http://localhost:9/v1"

# One of each, every argument other than its default.
EXAMPLES: dict[str, Callable[[], Any]] = {
    "AdaptiveRAG": lambda: rag.AdaptiveRAG(local(), "model", 2, 3, 9, 9, "zh"),
    "Annotate": lambda: rag.Annotate(local(), rag.Calculator(), 0.1, 0.5, 3, 2, (("a", "b"),), "zh", 3.5, 4),
    "AskPipeline": lambda: rag.AskPipeline("pipeline.yaml"),
    "CRAG": lambda: rag.CRAG(local(), 3, 0.5, -0.5, "model", "words", 2, 9, "zh", 0.7),
    "Calculator": lambda: rag.Calculator(),
    "Calendar": lambda: rag.Calendar("2023-01-30"),
    "ChainOfNote": lambda: rag.ChainOfNote(local(), 2, 9, 8, "zh", 0.7),
    "CorpusSearch": lambda: rag.CorpusSearch(rag.BM25(corpus()), 2),
    "Decompose": lambda: rag.Decompose(local(), 2, 3, 9, "zh"),
    "FinalAnswer": lambda: rag.FinalAnswer(),
    "Flare": lambda: rag.Flare(local(), 3, 9, "zh", 0.5, 0.3, "explicit", 32, 16, True, True, True, "summary"),
    "FlareInstruct": lambda: rag.FlareInstruct(local(), 3, 9, "zh", 1.0, 4, 2, "yes_no"),
    "HyDE": lambda: rag.HyDE(local(), corpus(), 2, 0.5, 3, "claim", 1, 9, "zh"),
    "IRCoT": lambda: rag.IRCoT(local(), 2, 3, 9, 9, 8, "zh", True),
    "IterRetGen": lambda: rag.IterRetGen(local(), 2, 3, 9, "zh"),
    "MCPTools": lambda: rag.MCPTools(["server"], ["a"], 3.5, ["KEY"], "A_KEY", True),
    "OpenAPITool": lambda: rag.OpenAPITool(
        str(Path(__file__).parents[1] / "tools" / "shop.yaml"), "get-item", "http://localhost:9", "A_KEY", 3.5, True
    ),
    "RerankEvaluator": lambda: rag.RerankEvaluator(rag.Rerank("folder"), False),
    "Rewrite": lambda: rag.Rewrite(local(), 9, "zh"),
    "SelfAsk": lambda: rag.SelfAsk(local(), 2, 3, 9, "zh"),
    "SelfRAG": lambda: rag.SelfRAG(
        local(), 2, 9, "zh", "trained", "always", 0.5, (1.0, 0.5, 0.5), True, True, "short", ("yes", "no"), 3, 4
    ),
    "Toolformer": lambda: rag.Toolformer(local(), [rag.Calculator()], 5, 2, 9, "zh", 3.5, True, 0.1),
    "Translate": lambda: rag.Translate(local(), "German", 9),
    "Analyzer": lambda: rag.Analyzer("german", stopwords=True),
    "AutoChunker": lambda: rag.AutoChunker(100, 2),
    "BM25": lambda: rag.BM25(corpus(), k=7, k1=1.2, b=0.5, analyzer=rag.Analyzer("none")),
    "Cited": lambda: rag.Cited(local(), k=2, max_tokens=9, language="zh", threshold=0.7, confidence=True),
    "Corpus": lambda: rag.Corpus("shelf", encoder(), rag.Analyzer(), rag.AutoChunker(50), True),
    "Decoupled": lambda: rag.Decoupled("store", "folder", 2, 9, "float64", "cpu"),
    "Dense": lambda: rag.Dense(corpus(), k=7, index="hnsw", encoder=encoder(), probe=4, ef=8),
    "Direct": lambda: rag.Direct(local(), max_tokens=9, language="en", confidence=True),
    "First": lambda: rag.First(),
    "Fuse": lambda: rag.Fuse(k=3, method="weighted", weights=(0.5, 2.0), constant=10),
    "KNNLM": lambda: rag.KNNLM("datastore", "smollm2", 0.3, 2.0, 64, "cpu", 4),
    "ListwiseRerank": lambda: rag.ListwiseRerank(local(), k=2, window=6, step=3, max_words=50, language="zh"),
    "Local": lambda: local(),
    "MarkdownChunker": lambda: rag.MarkdownChunker(100, 0),
    "ModelEvaluator": lambda: rag.ModelEvaluator(local(), "zh"),
    "OpenAICompatible": lambda: rag.OpenAICompatible(URL, "m", "A_KEY", 512, "max_completion_tokens", 3.5, 0, 2),
    "Rerank": lambda: rag.Rerank("folder", k=2, batch_size=3, max_pairs=4, device="cpu"),
    "SentenceChunker": lambda: rag.SentenceChunker(100, 0),
    "SentenceEncoder": lambda: encoder(),
    "Stitched": lambda: rag.Stitched("store", "smollm2", "lora", 2, 9, 0.15, "zh", "float64", "cpu", "blocks"),
    "VLLM": lambda: rag.VLLM(URL, "m", "lora", "A_KEY", 3.5, 0, 2),
}


def corpus() -> Any:
    return rag.Corpus("shelf")


def encoder() -> Any:
    return rag.SentenceEncoder("folder", 8, "cpu", "query: ", "passage: ", 64)


def local() -> Any:
    return rag.Local("folder", dtype="bfloat16", device="cpu", max_batch=2)


class Holder:
    """A node around any component."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def run(self, text: str) -> str:
        return text


@pytest.fixture(autouse=True)
def holder() -> Any:
    from rag.core.registry import _registered, component

    component(Holder)
    yield
    del _registered["Holder"]


def plain(value: Any) -> Any:
    """``value`` with its components as data, to be compared."""
    if type(value).__name__ in rag.COMPONENTS:
        return type(value).__name__, {key: plain(part) for key, part in configuration(value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def test_there_is_an_example_of_each() -> None:
    assert sorted(EXAMPLES) == sorted(rag.COMPONENTS)


@pytest.mark.parametrize("name", rag.COMPONENTS)
def test_it_round_trips(name: str) -> None:
    part = EXAMPLES[name]()
    assert registered(name) is type(part)
    text = Pipeline().add("node", Holder(part)).to_yaml()
    again = Pipeline.from_yaml(text)
    assert plain(again.nodes["node"].component.part) == plain(part)
    assert again.to_yaml() == text


def test_what_two_nodes_use_is_shared_and_stays_one() -> None:
    shelf = rag.Corpus("shelf", encoder=encoder())
    pipe = Pipeline().add("sparse", rag.BM25(shelf)).add("dense", rag.Dense(shelf, encoder=shelf.encoder)).add("fuse", rag.Fuse())
    pipe.connect("sparse", "fuse").connect("dense", "fuse")
    text = pipe.to_yaml()
    again = Pipeline.from_yaml(text)
    sparse, dense = again.nodes["sparse"].component, again.nodes["dense"].component
    assert sparse.corpus is dense.corpus
    assert dense.corpus.encoder is dense.encoder
    assert (text.count("type: Corpus"), text.count("type: SentenceEncoder"), again.to_yaml()) == (1, 1, text)


def test_a_file_can_name_every_component_in_a_process_that_imported_none(tmp_path: Path) -> None:
    """A name must not depend on what happens to be imported already."""
    pipe = Pipeline()
    for name in ("BM25", "Dense", "Cited", "Direct", "ListwiseRerank", "Rerank", "Fuse", "First"):
        pipe.add(name.lower(), EXAMPLES[name]())
    pipe.add("full", rag.BM25(EXAMPLES["Corpus"]()))
    pipe.add("markdown", rag.BM25(rag.Corpus("a", chunker=rag.MarkdownChunker())))
    pipe.add("sentence", rag.BM25(rag.Corpus("b", chunker=rag.SentenceChunker())))
    pipe.add("server", rag.Direct(rag.VLLM())).add("other", rag.Direct(rag.OpenAICompatible(URL, "m")))
    (tmp_path / "pipe.yaml").write_text(pipe.to_yaml())
    code = "from pathlib import Path; from rag import Pipeline; print(Pipeline.from_yaml(Path('pipe.yaml')).to_yaml(), end='')"
    fresh = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (fresh.stderr, fresh.stdout) == ("", pipe.to_yaml())
