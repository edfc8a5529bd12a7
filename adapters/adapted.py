"""One face for all methods: `adapt` a model, train it, `save` it, `load` it again, write it in a form that others read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapters import folder as disk
from adapters.contract import ChecksState, Factors, GivesLora, Merges, Method, Sparse, Worn
from adapters.methods import arguments, build
from rag.core.errors import AdapterError, AdapterMismatch, InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from adapters.contract import State

Form = Literal["lora", "merged"]


@dataclass(frozen=True)
class Report:
    """What an adapter costs, and what it can be written as."""

    method: str
    trained: int
    """Parameters that train, the head's included."""
    total: int
    """Parameters of the base model."""
    share: float
    bytes: int
    """Size of what is saved."""
    exports: tuple[str, ...]
    """"lora" (vLLM serves it), "merged" (a model of its own); neither: in this process only."""

    def __str__(self) -> str:
        forms = ", ".join(self.exports) or "none: it is worn in this process only"
        return (
            f"{self.method}: {self.trained:,} of {self.total:,} parameters train ({self.share:.3%}), {self.bytes:,} bytes; exports: {forms}"
        )


class Adapted:
    """A model that wears a method. Call `model`; `base` is the model that was given."""

    def __init__(self, base: nn.Module, method: Method, worn: Worn, head: Sequence[str], identity: str, weights: State) -> None:
        self.base = base
        self.method = method
        self.worn = worn
        self.identity = identity
        """Fingerprint of the base model."""
        self._weights = weights
        """The base model's own tensors, by the names they had before the method was put on it."""
        self._head = {name: base.get_submodule(name) for name in head}

    @property
    def model(self) -> nn.Module:
        """What to call: the base model or a wrapper around it."""
        return self.worn.model

    def trained(self) -> dict[str, nn.Parameter]:
        """All that trains: the method's parameters, and the head's under "head."."""
        return {**self.worn.trained(), **{f"head.{name}": parameter for name, parameter in self._head_parameters().items()}}

    def report(self) -> Report:
        """How much trains, how large it is, what it can be exported to."""
        worn, head = self.worn, self._head_parameters().values()
        own = worn.entries() if isinstance(worn, Sparse) else sum(parameter.numel() for parameter in worn.trained().values())
        size = worn.size() if isinstance(worn, Sparse) else _bytes(worn.state().values())
        trained = own + sum(parameter.numel() for parameter in head)
        total = sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in self._weights.values()}.values())
        return Report(type(self.method).__name__, trained, total, trained / max(1, total), size + _bytes(head), self.exports())

    def exports(self) -> tuple[str, ...]:
        """The forms of `export`."""
        offered = ((isinstance(self.worn, GivesLora), "lora"), (isinstance(self.worn, Merges), "merged"))
        return tuple(name for can, name in offered if can)

    def save(self, folder: str | Path, card: Mapping[str, Any] | None = None) -> None:
        """Write the adapter; ``card`` is what else its card shall tell (data, metrics, …)."""
        disk.write(Path(folder), self.worn.config(), self.worn.state(), self._head_parameters_plain(), self._card(card))

    def load_state(self, folder: str | Path) -> None:
        """Take the tensors of an adapter of this method and base. Raises `AdapterMismatch`, `AdapterDamaged`."""
        path = Path(folder)
        state, head = disk.read_weights(path)
        self._check_state(path, state)
        _check_same(path, "the head", self._head_parameters_plain(), head)
        self.worn.load_state(state)
        import torch

        with torch.no_grad():
            for name, parameter in self._head_parameters().items():
                parameter.copy_(head[name])

    def merged(self) -> State:
        """The base model's parameters with the method's effect in them, by name; those that it does not touch are left out."""
        if not isinstance(self.worn, Merges):
            raise AdapterError(f"{type(self.method).__name__} cannot be merged into the weights; {self._alternatives()}")
        return self.worn.merged()

    def merge(self) -> nn.Module:
        """Write the effect into the base model, take the method off, and give the base model. `remove` cannot undo this."""
        values = self.merged()
        import torch

        self.remove()
        with torch.no_grad():
            for name, value in values.items():
                self._weights[name].copy_(value)
        return self.base

    def to_lora(self) -> Factors:
        """As plain LoRA. Raises `AdapterError` for a method that is none."""
        if not isinstance(self.worn, GivesLora):
            raise AdapterError(f"{type(self.method).__name__} cannot be written as plain LoRA; {self._alternatives()}")
        return self.worn.to_lora()

    def export(self, form: Form, folder: str | Path) -> Factors | None:
        """Write a plain LoRA (an adapter folder that PEFT and vLLM load), or a whole model with the effect merged in.

        Gives the factors of a LoRA, whose ``residual`` says what they leave out. Raises `AdapterError` if the method has no such form.
        """
        path = Path(folder)
        if form == "lora":
            from adapters.reparameterised.lora.export import lora_folder

            factors = self.to_lora()
            config, state, options = lora_folder(factors, self.base)
            card = {**self._card({"exported_from": type(self.method).__name__, "residual": factors.residual}), **options}
            disk.write(path, config, state, {}, card)
            return factors
        if form == "merged":
            if path.exists():
                raise InputError(f"{path} is there already; name a new folder for the merged model")
            new = {id(self._weights[name]): value for name, value in self.merged().items()}  # a tied weight has two names
            self.base.save_pretrained(path, state_dict={name: new.get(id(own), own).detach() for name, own in self._weights.items()})  # type: ignore[operator]
            return None
        raise InputError(f"the forms of export are 'lora' and 'merged', not {form!r}")

    def remove(self) -> nn.Module:
        """Take the method off: the base model is as it was, but for its head."""
        self.worn.remove()
        return self.base

    def _check_state(self, path: Path, state: State) -> None:
        if not isinstance(self.worn, ChecksState):
            _check_same(path, "the adapter", self.worn.state(), state)
            return
        try:
            self.worn.check_state(state)
        except AdapterMismatch as error:
            raise AdapterMismatch(f"{path}: the adapter does not fit this model; {error}") from error

    def _head_parameters(self) -> dict[str, nn.Parameter]:
        return {f"{name}.{key}": parameter for name, module in self._head.items() for key, parameter in module.named_parameters()}

    def _head_parameters_plain(self) -> State:
        return {name: parameter.detach() for name, parameter in self._head_parameters().items()}

    def _card(self, more: Mapping[str, Any] | None) -> dict[str, Any]:
        base = {"name": str(getattr(self.base.config, "name_or_path", "")), "fingerprint": self.identity}
        chosen = {"method": type(self.method).__name__, "arguments": arguments(self.method), "base": base, "head": list(self._head)}
        return {**json.loads(json.dumps(dict(more or {}))), **chosen, "exports": list(self.exports())}

    def _alternatives(self) -> str:
        return f"it can be exported as: {', '.join(self.exports())}" if self.exports() else "it is worn in this process only (Local)"


def adapt(model: nn.Module, method: Method, head: Sequence[str] | None = None) -> Adapted:
    """Freeze ``model`` and put ``method`` on it. ``head`` names modules that train as a whole beside it (None: the task's head, if any).

    Raises `AdapterError` if nothing would train.
    """
    from adapters.anatomy import heads
    from adapters.fingerprint import fingerprint

    names = heads(model) if head is None else tuple(head)
    identity = fingerprint(model, names)
    weights = model.state_dict(keep_vars=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for name in names:  # a method that chooses among the base model's parameters leaves out what trains already
        model.get_submodule(name).requires_grad_(True)
    worn = method.attach(model)
    adapted = Adapted(model, method, worn, names, identity, weights)
    if not worn.trained():
        worn.remove()
        raise AdapterError(f"{type(method).__name__} found nothing to train in {type(model).__name__}")
    for parameter in adapted.trained().values():
        parameter.requires_grad_(True)
    return adapted


def load(model: nn.Module, folder: str | Path) -> Adapted:
    """``model`` with the adapter of ``folder``.

    Raises `AdapterMismatch` if it was made for another model, `AdapterDamaged` if a file is not what was written, `AdapterError` if there
    is none.
    """
    from adapters.fingerprint import fingerprint

    path = Path(folder)
    card = disk.read_card(path)
    found, expected = fingerprint(model, card.get("head", ())), card["base"]["fingerprint"]
    if not expected:
        raise AdapterMismatch(f"{path}: its base model is not known; add it again with `rag adapters add FOLDER --base MODEL --replace`")
    if found != expected:
        name = card["base"].get("name") or "another model"
        raise AdapterMismatch(f"{path} was made for {name} (fingerprint {expected[:12]}), not for this model ({found[:12]})")
    adapted = adapt(model, build(card["method"], card["arguments"]), card.get("head", ()))
    try:
        adapted.load_state(path)
    except BaseException:
        adapted.remove()
        raise
    return adapted


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _check_same(folder: Path, what: str, expected: State, found: State) -> None:
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        raise AdapterMismatch(
            f"{folder}: {what} does not fit this model; missing: {', '.join(missing[:3]) or 'none'},"
            f" unknown: {', '.join(unknown[:3]) or 'none'}"
        )
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape:
            raise AdapterMismatch(f"{folder}: {what}'s '{name}' has the shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}")
