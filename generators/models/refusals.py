"""What a vLLM server says of adapters, in words that help."""

from __future__ import annotations

from typing import Any

from rag.core.errors import ModelRefused


def with_advice(error: ModelRefused) -> ModelRefused:
    """``error``, with what to do about a server that loads no adapters."""
    if "Not Found" not in str(error):
        return error
    return ModelRefused(
        f"{error}; start the server with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True to load adapters at run time"
    )


def check_worn(answer: Any, adapter: str | None, address: str) -> None:
    """Raise `ModelRefused` unless ``answer`` is that of ``adapter``.

    A server that does not check names (VLLM_SKIP_MODEL_NAME_VALIDATION) answers for an unknown adapter as the bare model.
    """
    if adapter and isinstance(answer, dict) and answer.get("model", adapter) != adapter:
        raise ModelRefused(
            f"{address} answered as '{answer['model']}', not with the adapter '{adapter}': it is not loaded, and the"
            " server does not check names; unset VLLM_SKIP_MODEL_NAME_VALIDATION there, and load the adapter"
        )
