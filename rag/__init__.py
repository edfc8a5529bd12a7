"""graft: domain knowledge for a frozen language model.

``from rag import Pipeline, Corpus, Cited, VLLM``: every public name is here, imported on first use, so that ``import rag`` costs
milliseconds and loads no torch.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

_ROOMS: dict[str, str] = {
    # core
    "Answer": "rag.core.types",
    "Citation": "rag.core.types",
    "Document": "rag.core.types",
    "Generation": "rag.core.types",
    "Hit": "rag.core.types",
    "Message": "rag.core.types",
    "Passage": "rag.core.types",
    "Sampling": "rag.core.types",
    "SamplingRequest": "rag.core.types",
    "Token": "rag.core.types",
    "Batcher": "rag.core.batcher",
    "Branch": "rag.core.ports",
    "Encoder": "rag.core.protocols",
    "LanguageModel": "rag.core.protocols",
    "Pipeline": "rag.core.pipeline",
    "Retriever": "rag.core.protocols",
    "Run": "rag.core.engine",
    "component": "rag.core.registry",
    "GraftError": "rag.core.errors",
    "list_files": "retrievers.readers",
    "read_files": "retrievers.readers",
    "openapi_tools": "tools.openapi",
    "function_tool": "tools.function",
    # what a model wears
    "adapt": "adapters.adapted",
    "Rack": "generators.models.rack",
    "LoRAHub": "adapters.lorahub",
    **dict.fromkeys(
        (
            "SerialAdapter",
            "ParallelAdapter",
            "PrefixTuning",
            "PTuning",
            "PTuningV2",
            "APrompt",
            "LinkTokens",
            "FishMask",
            "ChildTuning",
            "CrossAttention",
            "BitFit",
            "LoRA",
            "AdaLoRA",
            "DoRA",
        ),
        "adapters",
    ),
}

COMPONENTS: dict[str, str] = {
    # names that a pipeline file may use, besides what the user registers
    "First": "rag.core.join",
    "Corpus": "retrievers.corpus",
    "AutoChunker": "retrievers.chunkers",
    "MarkdownChunker": "retrievers.chunkers",
    "SentenceChunker": "retrievers.chunkers",
    "Analyzer": "retrievers.analyzers",
    "SentenceEncoder": "retrievers.encoders",
    "Dense": "retrievers.dense",
    "BM25": "retrievers.bm25",
    "Fuse": "retrievers.fuse",
    "Rerank": "retrievers.rerank",
    "ListwiseRerank": "retrievers.listwise",
    "Local": "generators.models.local",
    "VLLM": "generators.models.vllm",
    "OpenAICompatible": "generators.models.openai_compatible",
    "KNNLM": "generators.knn_lm",
    "Stitched": "generators.stitched",
    "Decoupled": "generators.decoupled.decoupled",
    "Direct": "generators.direct",
    "Cited": "generators.cited",
    "Flare": "generators.flare.flare",
    "FlareInstruct": "generators.flare.instruct",
    "SelfRAG": "generators.self_rag.self_rag",
    "Toolformer": "generators.toolformer.toolformer",
    "Annotate": "generators.toolformer.annotate",
    "IRCoT": "generators.ircot",
    "IterRetGen": "generators.iter_retgen",
    "SelfAsk": "generators.self_ask",
    "AdaptiveRAG": "generators.adaptive_rag",
    "HyDE": "generators.hyde",
    "CRAG": "generators.crag",
    "ModelEvaluator": "generators.crag",
    "RerankEvaluator": "generators.crag",
    "ChainOfNote": "generators.chain_of_note",
    "Rewrite": "generators.rewrite",
    "Decompose": "generators.decompose",
    "FinalAnswer": "generators.final_answer",
    "Calculator": "tools.calculator",
    "Calendar": "tools.calendar",
    "CorpusSearch": "tools.search",
    "AskPipeline": "tools.ask",
    "Translate": "tools.translate",
    "OpenAPITool": "tools.openapi",
    "MCPTools": "tools.mcp",
}

__version__ = "0.1.0"
__all__ = sorted([*_ROOMS, *COMPONENTS])


def __getattr__(name: str) -> Any:
    module = _ROOMS.get(name) or COMPONENTS.get(name)
    if module is None:
        raise AttributeError(f"module 'rag' has no attribute '{name}'; public names are: {', '.join(__all__)}")
    value = getattr(_import(module), name)
    globals()[name] = value
    return value


def _import(module: str) -> Any:
    """Import ``module``; a foreign package that shadows one of our rooms gets an error that names its file."""
    room = module.partition(".")[0]
    try:
        imported = importlib.import_module(module)
    except ImportError:
        _refuse_foreign(room)
        raise
    _refuse_foreign(room)
    return imported


def _refuse_foreign(room: str) -> None:
    file = getattr(sys.modules.get(room), "__file__", None)
    if file and Path(file).resolve().parent.parent != Path(__file__).resolve().parent.parent:
        from rag.core.errors import ConfigError

        raise ConfigError(
            f"graft needs its own package '{room}', but Python found {file} first; rename that file or take its folder off the path"
            " (`rag doctor` lists every such clash)"
        )


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
