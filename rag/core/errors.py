"""Every error of graft, as one tree.

    GraftError
    ├── InputError             a value from the caller is out of range, empty, too long or of the wrong type
    │   └── ReadError          a document cannot be read (missing, empty, binary, encrypted, wrong encoding)
    ├── ConfigError            a pipeline file, a setting or a component name is wrong
    │   └── GraphError         a port or an edge does not fit
    ├── MissingDependency      an optional package is not installed
    ├── CorpusError            a corpus on disk cannot serve
    │   ├── CorpusNotFound     there is none at that path
    │   ├── CorpusLocked       another process is writing to it
    │   ├── CorpusDamaged      a checksum or a file does not match the manifest
    │   └── CorpusMismatch     another encoder, analyser or format version built it
    ├── ModelError             a language model or encoder cannot answer
    │   ├── ModelUnavailable   the server is down, slow or answers 5xx after the retries
    │   ├── ModelRefused       the server refused the request (4xx), with its reason
    │   ├── PromptTooLong      the prompt does not fit the model's window
    │   └── MissingCapability  the model does not offer what the method needs
    ├── AdapterError           an adapter cannot be made, worn or written
    │   ├── AdapterDamaged     a file of its folder is missing, truncated or not what the manifest says
    │   └── AdapterMismatch    it was made for another model, or its tensors have other names or shapes
    └── RunError               a pipeline run stopped
        ├── NodeError          a node raised; `node` names it and `__cause__` is the original error
        ├── NodeTimeout        a node passed its time limit
        └── LoopLimit          a loop edge reached its bound

A message says what happened, where, what is allowed, and what to do. A failure is never a score, a printed line or ``None``.
"""

from __future__ import annotations


class GraftError(Exception):
    """Root of all errors that graft raises on purpose."""


class InputError(GraftError, ValueError):
    """A value from the caller is out of range, empty, too long or of the wrong type."""


class ReadError(InputError):
    """A document cannot be read; the message starts with its path and states the reason."""


class ConfigError(GraftError):
    """A pipeline file, a setting or a component name is wrong."""


class GraphError(ConfigError):
    """A port or an edge does not fit; the message names both ends, their types and what would fit."""


class MissingDependency(GraftError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class CorpusError(GraftError):
    """A corpus on disk cannot serve."""


class CorpusNotFound(CorpusError):
    """There is no corpus at that path."""


class CorpusLocked(CorpusError):
    """Another process is writing to the corpus."""


class CorpusDamaged(CorpusError):
    """A file of the corpus is missing, truncated or does not match its checksum."""


class CorpusMismatch(CorpusError):
    """The corpus was built by another encoder, analyser or format version."""


class ModelError(GraftError):
    """A language model or an encoder cannot answer."""


class ModelUnavailable(ModelError):
    """The server is down, slow or answers 5xx after the retries; the message names its address."""


class ModelRefused(ModelError):
    """The server refused the request (4xx); the message carries its reason."""


class PromptTooLong(ModelError):
    """The prompt does not fit the model's window."""


class MissingCapability(ModelError):
    """The model does not offer what the method needs (log-probabilities, forced tokens, …)."""


class AdapterError(GraftError):
    """An adapter cannot be made, worn or written."""


class AdapterDamaged(AdapterError):
    """A file of the adapter's folder is missing, truncated or not what the manifest says."""


class AdapterMismatch(AdapterError):
    """The adapter was made for another model, or its tensors have other names or shapes."""


class RunError(GraftError):
    """A pipeline run stopped."""


class NodeError(RunError):
    """A node raised. ``node`` is its name; ``__cause__`` is the original error."""

    def __init__(self, message: str, node: str) -> None:
        super().__init__(message)
        self.node = node


class NodeTimeout(NodeError):
    """A node passed its time limit."""


class LoopLimit(RunError):
    """A loop edge reached its bound."""
