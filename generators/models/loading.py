"""A decoder of transformers and its tokenizer, loaded: the one place that does it for all models in this process."""

from __future__ import annotations

from typing import Any

from generators.models.embedded import resolve, without_progress_bars
from rag.core.errors import MissingDependency, ModelError


def load_decoder(name: str, dtype: str, device: str) -> tuple[Any, Any]:
    """Model and tokenizer of ``name``: "smollm2" (embedded), a folder, or a Hugging Face id. The model is in evaluation mode.

    ``dtype`` is a name of torch's, or "auto" (as stored); ``device`` is "auto" (a GPU if there is one) or one of torch's. Raises
    `MissingDependency`, and `ModelError` for what cannot be loaded.
    """
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingDependency(f"a model in process needs torch and transformers ({error}): pip install 'graft-rag[cpu]'") from error
    place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    source = resolve(name)
    try:
        with without_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype if dtype == "auto" else getattr(torch, dtype))
        return model.to(place).eval(), tokenizer  # type: ignore[arg-type]
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"cannot load the model '{name}' on {place}: {str(error).strip()[:600]}") from error
