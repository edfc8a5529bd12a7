"""A decoder in process as stitching needs it: its forward pass behind a given cache, and its keys before they are rotated."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any, get_args

import torch

from adapters.contract import Links, Worn
from adapters.durable import sha256
from adapters.fingerprint import fingerprint
from adapters.folder import CONFIG, WEIGHTS
from generators.models.loading import load_decoder
from generators.models.stitched.raw import RawKeys
from generators.models.stitched.rotary import Frequencies, Pairing, Rotary, frequencies_of
from generators.models.tokens import PromptTokenizer
from generators.models.wardrobe import Wardrobe, folder_of
from rag.core.errors import AdapterDamaged, InputError, MissingCapability, ModelError
from retrievers.context.encoded import ModelIdentity

DTYPES = ("float32", "bfloat16", "float16", "float64", "auto")

_TRIED = 6
"""Tokens of the text by which a model is tried out."""


class Decoder:
    """``model`` and ``tokenizer`` of transformers; ``name`` is for errors, ``adapter`` the folder or registry name of what it shall wear.

    How keys are made and turned is not believed from names: a few tokens are run at both ends of the window, and a model whose own cache
    is not what `Rotary` makes of its raw keys is refused (`MissingCapability`), as are sliding windows. ``identity`` says whose keys and
    values these are; ``links`` are the tokens that belong behind each passage, if the adapter has such. Whoever runs it holds ``lock``.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, adapter: str | None = None) -> None:
        self.name = name
        self.lock = threading.RLock()
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.tokens = PromptTokenizer(tokenizer, name)
        self.tokenizer = tokenizer
        config = model.config.get_text_config()
        self.window = int(getattr(config, "max_position_embeddings", 0) or tokenizer.model_max_length)
        self.vocabulary = int(config.vocab_size)
        ends = model.generation_config.eos_token_id if model.generation_config.eos_token_id is not None else tokenizer.eos_token_id
        self.ends: frozenset[int] = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])
        frequencies = frequencies_of(model)
        _check_sees_all(config, name)
        self.layers = int(config.num_hidden_layers)
        weights = fingerprint(model)  # of the bare model: an adapter may put its tensors among them
        wardrobe = Wardrobe(model, links=True)
        self._model = wardrobe.wearing(adapter)
        self.links, other = _links(wardrobe.worn)
        worn = adapter_hash(folder_of(adapter)) if adapter is not None and other else None
        self._raw = RawKeys(self._model, self.layers)
        self.rotary, self.heads, self.head_dim = self._tried(frequencies)
        self.identity = ModelIdentity(
            weights, tokenizer_hash(tokenizer), worn, self.rotary.identity, self.layers, self.heads, self.head_dim
        )

    @torch.no_grad()
    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, cache: Any, mask: torch.Tensor | None = None, keep: int = 1
    ) -> torch.Tensor:
        """Run ``tokens`` [rows, n] at ``positions`` [rows, n] behind ``cache``, which grows by them; logits [rows, ``keep``, vocabulary].

        ``mask`` is [rows, cached + n] of 0 and 1 (padding), or an addend [1, 1, n, keys] on the scores; None: every token sees the cache
        and what stands before it. ``keep`` 0 keeps the logits of all n. Raises `ModelError` when memory is short.
        """
        if mask is None:  # said, lest the model takes a jump in the positions for the start of another text
            mask = torch.ones(tokens.shape[0], cache.get_seq_length() + tokens.shape[1], dtype=torch.long, device=self.device)
        try:
            output = self._model(
                input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=keep
            )
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self.name}: {tokens.numel()} tokens behind {cache.get_seq_length()} do not fit into the memory of {self.device}; give"
                " fewer or shorter passages, or lower batch_tokens"
            ) from error
        logits: torch.Tensor = output.logits
        return logits

    def raw(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Raw keys and values of each layer, [rows, heads, n, head_dim], of ``tokens`` [rows, n] from position 0, padded behind."""
        with self.lock:
            keys, cache = self._run(tokens, torch.arange(tokens.shape[1], device=self.device).expand_as(tokens), mask)
        return self._raw.shaped(keys, self.heads, self.head_dim), [layer.values for layer in cache.layers]

    def _run(self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[list[torch.Tensor], Any]:
        from transformers import DynamicCache

        cache = DynamicCache()
        with self._raw.heard() as outputs:
            self.forward(tokens, positions, cache, mask)
        return outputs, cache

    def _tried(self, frequencies: Frequencies) -> tuple[Rotary, int, int]:
        """The rotation that makes the model's own cache of its raw keys; heads and head_dim of that cache."""
        length = min(_TRIED, self.window)
        tokens = (torch.arange(length, device=self.device)[None] * 7 + 3) % self.vocabulary
        near = torch.arange(length, device=self.device)
        far = near + self.window - length
        outputs, cache = self._run(tokens, near[None])
        far_outputs, far_cache = self._run(tokens, far[None])
        shapes = {tuple(layer.keys.shape[1::2]) for layer in cache.layers}
        if len(shapes) != 1:
            raise MissingCapability(f"{self.name}: its layers keep caches of different shapes ({sorted(shapes)}); contexts need one")
        heads, head_dim = shapes.pop()
        if cache.get_seq_length() != length:
            raise MissingCapability(
                f"{self.name} keeps {cache.get_seq_length()} keys of {length} tokens: what it wears puts vectors in front of a text, and"
                " passages that are encoded apart have none there; use an adapter that changes layers, such as LoRA"
            )
        raw, far_raw = self._raw.shaped(outputs, heads, head_dim), self._raw.shaped(far_outputs, heads, head_dim)
        if not self._same(raw[0], far_raw[0]):
            raise MissingCapability(
                f"{self.name}: the keys of its first layer change with the position before they are rotated, so a passage cannot be moved"
                " from where it was encoded; use a model whose only positions are rotary"
            )
        for pairing in get_args(Pairing):
            rotary = Rotary(pairing, frequencies)
            both = ((raw, cache, near), (far_raw, far_cache, far))
            if all(
                self._same(rotary.rotate(keys, positions), layer.keys)
                for made, kept, positions in both
                for keys, layer in zip(made, kept.layers, strict=True)
            ):
                return rotary, heads, head_dim
        raise MissingCapability(
            f"{self.name}: what it keeps are not its keys rotated in halves or interleaved, so this version cannot move its passages; use a"
            " Llama-like model, GPT-NeoX or GPT-J"
        )

    def _same(self, one: torch.Tensor, other: torch.Tensor) -> bool:
        # a model turns in its own precision, and in float32 at best; a wrong pairing or frequency is off by about 1
        tolerance = max(torch.finfo(self.dtype).eps, torch.finfo(torch.float32).eps) ** 0.5
        return one.shape == other.shape and bool((one - other).abs().max() <= tolerance * other.abs().max())


def load(name: str, adapter: str | None = None, dtype: str = "float32", device: str = "auto") -> Decoder:
    """Load ``name``: "smollm2" (embedded), a folder, or a Hugging Face id.

    Raises `InputError` for a wrong dtype or name, `ModelError` if it cannot be loaded, and what `Decoder` and adapters raise.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
    return Decoder(*load_decoder(name, dtype, device), name, adapter)


def _check_sees_all(config: Any, name: str) -> None:
    kinds = set(
        getattr(config, "layer_types", None) or ["sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"]
    )
    if kinds != {"full_attention"}:
        raise MissingCapability(
            f"{name}: it has layers of {', '.join(sorted(kinds - {'full_attention'}))}, which do not see all passages; use a model that"
            " attends to all of its text"
        )


def _links(worn: Worn | None) -> tuple[tuple[int, ...], bool]:
    """The link tokens of what is worn, and whether it makes other keys and values of text. Passages are encoded without link tokens."""
    return (worn.links(), not worn.leaves_text()) if isinstance(worn, Links) else ((), worn is not None)


def adapter_hash(folder: Path) -> str:
    """Of an adapter's configuration and weights, which a copy for a server has too (its card it has not). Raises `AdapterDamaged`."""
    try:
        return hashlib.sha256(json.dumps([(name, sha256(folder / name)) for name in (CONFIG, WEIGHTS)]).encode()).hexdigest()
    except OSError as error:
        raise AdapterDamaged(f"{folder}: the adapter cannot be read ({error})") from error


def tokenizer_hash(tokenizer: Any) -> str:
    """Over all that decides what tokens a text has, but for padding and truncation, which a caller may set."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
    parts = json.loads(backend.to_str())
    return hashlib.sha256(json.dumps({**parts, "padding": None, "truncation": None}, sort_keys=True).encode()).hexdigest()
