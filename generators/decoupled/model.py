"""A small T5 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683) whose two halves never see the other's text.

T5 suits the paper: its cross-attention has no positions, so the memory has none and the order of contexts cannot matter; the encoder's
relative positions are those within one context.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from generators.decoupled.batches import IGNORED, Batch
from generators.models.embedded import resolve, without_progress_bars
from rag.core.errors import InputError, MissingCapability, ModelError
from retrievers.context.encoded import Encoded, ModelIdentity

DTYPES = ("float32", "bfloat16", "float16", "float64")
POSITIONS = "none"
"""Of the memory, as `ModelIdentity` says it."""
_SHAPING = ("relative_attention_max_distance", "feed_forward_proj", "layer_norm_epsilon", "scale_decoder_outputs", "decoder_start_token_id")
"""Settings that change numbers and cannot be told from the weights."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a new model; T5's names."""

    d_model: int = 192
    d_kv: int = 32
    d_ff: int = 768
    num_layers: int = 2
    num_decoder_layers: int = 2
    num_heads: int = 6
    dropout_rate: float = 0.0


class EncoderDecoder:
    """``model`` is a T5 of transformers, ``tokenizer`` its own, with a separator (`train_tokenizer`); ``name`` is for errors.

    Raises `MissingCapability` for a model of another kind, `ModelError` without a separator. Whoever runs it holds ``lock``.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        config = model.config
        if config.model_type != "t5":
            raise MissingCapability(
                f"{name} is a '{config.model_type}': contexts are decoupled with a T5, whose decoder reads them without positions"
            )
        if tokenizer.sep_token_id is None or len(tokenizer) > config.vocab_size:
            raise ModelError(f"{name}: its tokenizer has no separator or more tokens than the model; train it with generators.decoupled")
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.lock = threading.RLock()
        self._spelling = threading.Lock()  # tokenizers refuse concurrent use
        self.start = int(config.decoder_start_token_id or 0)
        self.separator, self.end = int(tokenizer.sep_token_id), int(tokenizer.eos_token_id)
        self.window = int(tokenizer.model_max_length)
        self.vocabulary = int(config.vocab_size)
        self.layers, self.heads, self.head_dim = int(config.num_decoder_layers), int(config.num_heads), int(config.d_kv)

    @staticmethod
    def created(tokenizer: Any, size: Size = Size(), seed: int = 0) -> EncoderDecoder:
        """A new model with random weights. Seeds torch's global generator."""
        from transformers import T5Config, T5ForConditionalGeneration

        torch.manual_seed(seed)
        pad = tokenizer.pad_token_id
        special: dict[str, Any] = {"pad_token_id": pad, "eos_token_id": tokenizer.eos_token_id, "decoder_start_token_id": pad}
        config = T5Config(vocab_size=len(tokenizer), **special, **asdict(size))
        return EncoderDecoder(T5ForConditionalGeneration(config).eval(), tokenizer, "a new model")  # type: ignore[no-untyped-call]

    @staticmethod
    def load(folder: str, dtype: str = "float32", device: str = "auto") -> EncoderDecoder:
        """What `save` wrote, or another T5 whose tokenizer has a separator.

        Raises `InputError` for a wrong dtype or name, `ModelError` for what cannot be loaded, and what the class raises.
        """
        if dtype not in DTYPES:
            raise InputError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
        from safetensors import SafetensorError
        from transformers import AutoConfig, AutoTokenizer, T5ForConditionalGeneration

        source = resolve(folder)
        place = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            with without_progress_bars():
                config = AutoConfig.from_pretrained(source)
                if config.model_type != "t5":  # before its weights are read
                    raise MissingCapability(f"{folder} is a '{config.model_type}', not a T5; train one with generators.decoupled")
                tokenizer = AutoTokenizer.from_pretrained(source)
                model: Any = T5ForConditionalGeneration.from_pretrained(source, dtype=getattr(torch, dtype), use_safetensors=True)
            return EncoderDecoder(model.to(place).eval(), tokenizer, folder)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"cannot load the model '{folder}' on {place}: {str(error).strip()[:600]}") from error

    def save(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors and tokenizer.json."""
        with without_progress_bars():
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        device: torch.device = self.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """In which numbers it computes."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def identity(self) -> ModelIdentity:
        """Whose keys and values these are: hashes over every bit of the weights as they are now, and the tokenizer."""
        return ModelIdentity(
            _weights_hash(self.model), _tokenizer_hash(self.tokenizer), None, POSITIONS, self.layers, self.heads, self.head_dim
        )

    def ids(self, text: str) -> list[int]:
        """The tokens of ``text``, in which a special token's name is text like any other. Raises `InputError` if there are none."""
        with self._spelling:
            found = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        if not found:
            raise InputError(f"{self.name} makes no token of {text!r}")
        return [int(token) for token in found]

    def question(self, prefix: list[int] | tuple[int, ...]) -> list[int]:
        """What the decoder reads before it writes."""
        return [self.start, *prefix, self.separator]

    def encodings(self, contexts: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The paper's H = Enc(c) of ``contexts`` [n, tokens], none of which sees another: [n, tokens, d_model]."""
        found: torch.Tensor = self.model.encoder(input_ids=contexts, attention_mask=mask).last_hidden_state
        return found

    def projected(self, encodings: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values that every decoder layer makes of ``encodings`` [tokens, d_model]: [layers, heads, tokens, head_dim] each."""
        attentions = [block.layer[1].EncDecAttention for block in self.model.decoder.block]
        shape = (len(encodings), self.heads, self.head_dim)
        keys = torch.stack([attention.k(encodings).view(shape).transpose(0, 1) for attention in attentions])
        return keys, torch.stack([attention.v(encodings).view(shape).transpose(0, 1) for attention in attentions])

    def encode(self, tokens: tuple[int, ...]) -> Encoded:
        """One context, by itself in its own forward pass, on the CPU."""
        with self.lock, torch.no_grad():
            encodings = self.encodings(torch.tensor([tokens], device=self.device))[0]
            keys, values = self.projected(encodings)
        return Encoded(tokens, keys.cpu(), values.cpu())

    def decode(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None = None,
        memory: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
        cache: Any = None,
    ) -> torch.Tensor:
        """The decoder's last hidden states of ``ids`` [rows, tokens] behind ``cache``, with or without a memory [rows, tokens, d_model].

        Where ``cache`` has the memory's keys and values, only the shape of ``memory`` is looked at.
        """
        output = self.model.decoder(
            input_ids=ids,
            attention_mask=mask,
            encoder_hidden_states=memory,
            encoder_attention_mask=memory_mask,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Over the vocabulary, of the decoder's ``hidden`` states."""
        scaled = hidden * self.model.model_dim**-0.5 if self.model.config.scale_decoder_outputs else hidden
        found: torch.Tensor = self.model.lm_head(scaled)
        return found

    def target_logits(self, batch: Batch) -> torch.Tensor:
        """P(y_i | y_<i, x, Concat(Enc(c_1) … Enc(c_k))) for all scored tokens of ``batch``, row after row: [scored, vocabulary]."""
        memory = memory_mask = None
        if batch.places.shape[1]:
            encodings = self.encodings(batch.contexts, batch.contexts_mask)
            there = batch.places >= 0
            places = batch.places.clamp(min=0)
            memory = encodings[places].flatten(1, 2)
            memory_mask = (batch.contexts_mask[places] * there[:, :, None]).flatten(1, 2)
        hidden = self.decode(batch.ids, batch.mask, memory, memory_mask)
        return self.logits(hidden[batch.labels != IGNORED])


def is_encoder_decoder(name: str) -> bool:
    """Whether ``name`` is a folder with a model of this kind, so that its contexts are for `DecoupledEncoder`."""
    file = Path(name).expanduser() / "config.json"
    try:
        return file.is_file() and json.loads(file.read_text("utf-8")).get("model_type") == "t5"
    except (OSError, ValueError, AttributeError):
        return False


def _weights_hash(model: Any) -> str:
    """Over every number in float32, and the settings that shape what is made of them."""
    made = hashlib.sha256(json.dumps([str(getattr(model.config, name, None)) for name in _SHAPING]).encode())
    for name, parameter in sorted(model.named_parameters()):
        made.update(f"{name} {tuple(parameter.shape)}\n".encode())
        made.update(parameter.detach().to("cpu", torch.float32).contiguous().view(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()


def _tokenizer_hash(tokenizer: Any) -> str:
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    return hashlib.sha256(json.dumps({**parts, "padding": None, "truncation": None}, sort_keys=True).encode()).hexdigest()
