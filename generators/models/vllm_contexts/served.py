"""Whose keys and values a served model's are, told from its folder: a server has the model in a form of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch

from adapters.fingerprint import fingerprint_of
from generators.models.stitched.decoder import tokenizer_hash
from generators.models.stitched.rotary import Frequencies, Pairing, Rotary, frequencies_of
from rag.core.errors import ConfigError, CorpusMismatch
from retrievers.context.encoded import ModelIdentity
from retrievers.context.manifest import check_model


@dataclass(frozen=True, eq=False)
class Served:
    """``identity`` of the bare model; its ``rotary`` leaves open how dimensions pair, which only a run of the model would tell."""

    identity: ModelIdentity
    frequencies: Frequencies

    def rotary_of(self, model: ModelIdentity, where: Path) -> Rotary:
        """What turns the keys of a store of ``model``, with whichever adapter. Raises `CorpusMismatch` if this is another model."""
        for pairing in get_args(Pairing):
            rotary = Rotary(pairing, self.frequencies)
            if rotary.identity == model.rotary:
                check_model(replace(model, adapter=None), replace(self.identity, rotary=rotary.identity), where)
                return rotary
        raise CorpusMismatch(f"{where}: these contexts were encoded by a model with other rotary positions than the served one")


def served_model(model: str, tokenizer: str | None = None, revision: str | None = None) -> Served:
    """Of the folder or Hugging Face id that the server was given; nothing is downloaded, and only samples of the weights are read.

    Raises `ConfigError` for a model whose files cannot be told apart, `MissingCapability` for one whose passages cannot be moved.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = _folder(model, revision)
    try:
        config = AutoConfig.from_pretrained(folder)
        maker: Any = AutoModelForCausalLM
        with torch.device("meta"):
            bare = maker.from_config(config)
        reader = AutoTokenizer.from_pretrained(tokenizer or folder)
        weights = fingerprint_of(_sorted(folder, sorted(name for name, _ in bare.named_parameters())))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(f"{folder}: contexts need a model that transformers can load, and this one cannot be read ({error})") from error
    text = config.get_text_config()
    heads = int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
    head_dim = int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    identity = ModelIdentity(weights, tokenizer_hash(reader), None, "", int(text.num_hidden_layers), heads, head_dim)
    return Served(identity, _frequencies(bare, text))


def _frequencies(bare: Any, config: Any) -> Frequencies:
    """As `frequencies_of`, whose checks read names; the numbers of a model without numbers are made again."""
    for module in bare.modules():
        if isinstance(getattr(module, "inv_freq", None), torch.Tensor):
            made: Any = type(module)(config)
            for name, buffer in made.named_buffers(recurse=False):
                module.register_buffer(name, buffer, persistent=False)
    return frequencies_of(bare)


def _sorted(folder: Path, names: list[str]) -> Any:
    from safetensors import safe_open

    opened: list[Any] = [safe_open(file, framework="pt", device="cpu") for file in sorted(folder.glob("*.safetensors"))]
    places = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 - no mapping
    for name in names:
        if name not in places:
            raise KeyError(f"its safetensors files have no {name}")
        yield name, places[name].get_tensor(name)


def _folder(model: str, revision: str | None) -> Path:
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError) as error:
        raise ConfigError(f"{model}: the files of the served model are not on this machine ({error})") from error
