"""The model that an adapter is for: where it is, and as what it is loaded."""

from __future__ import annotations

from typing import Any

from rag.core.errors import MissingDependency, ModelError


def base_folder(name: str) -> str:
    """The folder of "smollm2" or "minilm", a folder itself, or a Hugging Face id as it is. Raises what `resolve` and `find` do."""
    from generators.models.embedded import resolve
    from retrievers.encoders import SHORT, find

    return str(find(name)) if name in SHORT else resolve(name)


def load_base(name: str, dtype: str = "auto") -> tuple[Any, Any]:
    """A base model on the CPU and its tokenizer (None where it has none). Raises `ModelError`, `InputError`, `MissingDependency`."""
    from generators.models.embedded import without_progress_bars

    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingDependency(f"adapters need torch and transformers ({error}): pip install 'graft-rag[cpu]'") from error
    source = base_folder(name)
    try:
        with without_progress_bars():
            config = transformers.AutoConfig.from_pretrained(source)
            kind: Any = getattr(transformers, _auto_class(config))
            model = kind.from_pretrained(source, dtype=dtype if dtype == "auto" else getattr(torch, dtype))
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot load the model '{name}': {str(error).strip()[:600]}") from error
    return model.eval(), _tokenizer(source)


def _auto_class(config: Any) -> str:
    architecture = (config.architectures or [""])[0]
    if config.is_encoder_decoder:
        return "AutoModelForSeq2SeqLM"
    if architecture.endswith("ForSequenceClassification"):
        return "AutoModelForSequenceClassification"
    return "AutoModelForCausalLM" if architecture.endswith(("ForCausalLM", "LMHeadModel")) else "AutoModel"


def _tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, RuntimeError):
        return None
    return tokenizer if tokenizer.vocab_size else None  # transformers 5 makes an empty one up for some kinds of model
