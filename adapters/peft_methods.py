"""Methods that PEFT has, worn through PEFT: weights inside the layers (LoRA and its kin) or a prompt before the input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapters.anatomy import blocks, heads, linears
from adapters.contract import Factors
from rag.core.errors import AdapterError, InputError, MissingDependency

if TYPE_CHECKING:
    from adapters.contract import State

LayerFactors = tuple[Tensor, Tensor, float]
"""A [r, in] and B [out, r] with alpha = r, and the share of the change that they leave out."""


class PeftWeights:
    """``config`` on ``model``: PEFT's layers around the linear layers that it names. LoRA and its kin.

    ``merged_weight(layer)`` is the weight, [out, in] or as the base layer keeps it, that does what ``layer`` does; ``factors(layer)`` its
    change as plain LoRA with alpha = r: A, B, and the share of the change that they leave out.
    """

    def __init__(
        self, model: nn.Module, config: Any, merged_weight: Callable[[Any], Tensor], factors: Callable[[Any], LayerFactors]
    ) -> None:
        self.peft: Any = wrapped(model, config)
        self._base = model
        self._merged_weight = merged_weight
        self._factors = factors
        kinds = {kind for layer in self.layers().values() for kind in layer.adapter_layer_names}
        # PEFT's own flags cannot be asked: AdaLoRA keeps its rank as a parameter, which trains by mistake unless the base is in float32.
        for name, parameter in self.peft.named_parameters():
            parameter.requires_grad_(not kinds.isdisjoint(name.split(".")))
        self._trained = {name: parameter for name, parameter in self.peft.named_parameters() if parameter.requires_grad}

    @property
    def model(self) -> nn.Module:
        """PEFT's wrapper."""
        wrapper: nn.Module = self.peft
        return wrapper

    def trained(self) -> dict[str, nn.Parameter]:
        """What PEFT trains."""
        return dict(self._trained)

    def state(self) -> State:
        """As PEFT saves it."""
        return peft_state(self.peft)

    def load_state(self, state: State) -> None:
        """As PEFT loads it."""
        load_peft_state(self.peft, state)

    def config(self) -> Mapping[str, Any]:
        """PEFT's ``adapter_config.json``."""
        return peft_config(self.peft, self._base)

    def layers(self) -> dict[str, Any]:
        """PEFT's layers, by the names of the base layers inside them."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        return {name: module for name, module in self._base.named_modules() if isinstance(module, BaseTunerLayer)}

    def merged(self) -> State:
        """Of each layer the new weight."""
        with torch.no_grad():
            return {f"{name}.weight": self._merged_weight(layer) for name, layer in self.layers().items()}

    def to_lora(self) -> Factors:
        """Of each layer its factors."""
        with torch.no_grad():
            found = {name: self._factors(layer) for name, layer in self.layers().items()}
        ranks = {a.shape[0] for a, _, _ in found.values()}
        if len(ranks) != 1:
            raise AdapterError(f"its layers have different ranks ({sorted(ranks)}); vLLM takes one rank for all")
        r = ranks.pop()
        return Factors(r, float(r), {name: (a, b) for name, (a, b, _) in found.items()}, max(left for _, _, left in found.values()))

    def remove(self) -> None:
        """Take PEFT's layers out again."""
        self.peft.unload()


class PromptVectors(nn.Module):
    """Where PEFT asks for its vectors.

    ``maker`` maps indices [rows, l] to vectors [rows, l, width]: a network in training, a table once they were loaded.
    """

    def __init__(self, maker: nn.Module) -> None:
        super().__init__()
        self.maker = maker

    @property
    def embedding(self) -> nn.Embedding:
        """PEFT reads its device."""
        table: nn.Embedding = self.maker.embedding  # type: ignore[assignment]
        return table

    def forward(self, indices: Tensor) -> Tensor:
        """[batch, l, width]: made for one row and shared, so that a batch costs no more and gets the very values that are saved."""
        made: Tensor = self.maker(indices[:1])
        return made.expand(len(indices), -1, -1)

    def flat(self) -> Tensor:
        """The vectors as they stand, [l, width]."""
        with torch.no_grad():
            count = self.embedding.num_embeddings
            made: Tensor = self.maker(torch.arange(count, device=self.embedding.weight.device)[None])
            return made[0].detach().clone()

    def fix(self, vectors: Tensor) -> None:
        """Make ``vectors`` [l, width] what is given. A network that made them before is dropped: no weights of it give just these."""
        own = self.embedding.weight
        if [name for name, _ in self.maker.named_parameters()] == ["embedding.weight"] and own.shape == vectors.shape:
            with torch.no_grad():
                own.copy_(vectors)
        else:
            self.maker = Table(vectors.to(own.device, own.dtype, copy=True))


class Table(nn.Module):
    """Vectors [l, width] by their number."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        rows, width = vectors.shape
        self.embedding = nn.Embedding(rows, width, _weight=vectors)

    def forward(self, indices: Tensor) -> Tensor:
        """[rows, l, width]."""
        found: Tensor = self.embedding(indices)
        return found


class PeftPrompt:
    """``config`` on ``model``: trained vectors before the input or before each layer's keys and values. The base model's modules stay.

    ``config`` has PEFT's task type, see `prompt_task`. Raises `AdapterError` if PEFT refuses the model, if the model cannot run with the
    vectors, or if it passes them by in silence.
    """

    def __init__(self, model: nn.Module, config: Any) -> None:
        self.peft: Any = wrapped(model, config)
        self._base = model
        _unwrap_heads(model)
        self._vectors = PromptVectors(self.peft.prompt_encoder["default"])
        self.peft.prompt_encoder["default"] = self._vectors
        self._check_worn(config.peft_type.value)

    @property
    def model(self) -> nn.Module:
        """PEFT's wrapper, which puts the vectors in front."""
        wrapper: nn.Module = self.peft
        return wrapper

    def trained(self) -> dict[str, nn.Parameter]:
        """The vectors, or the network that makes them."""
        return dict(self._vectors.maker.named_parameters())

    def state(self) -> State:
        """The vectors themselves under PEFT's name, [l, width]: what made them in training is left out."""
        return {"prompt_embeddings": self._vectors.flat()}

    def load_state(self, state: State) -> None:
        """Take the vectors. From then on they train themselves, without what made them: `trained` is another."""
        self._vectors.fix(state["prompt_embeddings"])

    def config(self) -> Mapping[str, Any]:
        """PEFT's ``adapter_config.json``."""
        return {**peft_config(self.peft, self._base), "modules_to_save": None}

    def remove(self) -> None:
        """Nothing stands in the base model but a method that PEFT's ``generate`` leaves behind."""
        self._base.__dict__.pop("prepare_inputs_for_generation", None)

    def _check_worn(self, method: str) -> None:
        name = type(self._base).__name__
        try:
            reached = self._reached()
        except Exception as error:  # whatever an unknown model raises
            raise AdapterError(f"{name} cannot run with {method} as PEFT has it: {type(error).__name__}: {error}") from error
        if not reached:
            raise AdapterError(f"{name} passes the vectors of {method} by: its output does not depend on them, so nothing would train")

    def _reached(self) -> bool:
        """Whether the output for two tokens depends on the vectors."""
        ids = torch.ones(1, 2, dtype=torch.long, device=self._vectors.embedding.weight.device)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if getattr(self._base.config, "is_encoder_decoder", False):
            given["decoder_input_ids"] = ids
        modes = [(module, module.training) for module in self.peft.modules()]
        self.peft.eval()
        try:
            with torch.enable_grad():
                return bool(self.peft(**given)[0].requires_grad)
        finally:
            for module, training in modes:
                module.training = training


def prompt_task(model: nn.Module, method: str) -> str:
    """PEFT's task type for ``model``: it decides how a prompt meets labels and heads. Raises `AdapterError` if PEFT has none."""
    name, head = type(model).__name__, heads(model)
    encoder_decoder = bool(getattr(model.config, "is_encoder_decoder", False))
    if head and not encoder_decoder and "MultipleChoice" not in name:
        if "qa_outputs" in head:
            return "QUESTION_ANS"
        return "TOKEN_CLS" if "TokenClassification" in name else "SEQ_CLS"
    can_generate = getattr(model, "can_generate", None)
    if not head and can_generate is not None and can_generate():
        return "SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM"
    raise AdapterError(
        f"{method}: PEFT puts prompts on causal and encoder-decoder language models, and on encoders or decoders with a head for"
        f" classification, tokens or question answering; {name} is none of them"
    )


def _unwrap_heads(model: nn.Module) -> None:
    """PEFT puts a second head beside a task's own; the head is trained as it is here, whatever the method."""
    from peft.utils.other import ModulesToSaveWrapper

    for name, module in list(model.named_children()):
        if isinstance(module, ModulesToSaveWrapper):
            setattr(model, name, module.original_module)


def wrapped(model: nn.Module, config: Any) -> Any:
    """PEFT's wrapper of ``config`` around ``model``. Raises `AdapterError` where PEFT refuses."""
    import peft

    if getattr(config, "target_modules", None):
        config.fan_in_fan_out = keeps_transposed(model, config.target_modules)
    known = {id(module) for module in model.modules()}
    try:
        made = peft.get_peft_model(model, config)
    except ValueError as error:
        raise AdapterError(f"{type(model).__name__}: PEFT cannot put {config.peft_type.value} on it: {error}") from error
    for module in made.modules():
        if id(module) not in known:
            module.training = model.training  # PEFT leaves its dropout on in a model that is in evaluation mode
    return made


def keeps_transposed(model: nn.Module, names: Iterable[str]) -> bool:
    """Whether these layers, worn or bare, keep their weights as [in, out], as GPT-2's do; PEFT warns of each if it is not told."""
    from transformers.pytorch_utils import Conv1D

    layers = (model.get_submodule(name) for name in names)
    return any(isinstance(getattr(layer, "base_layer", layer), Conv1D) for layer in layers)


def peft_state(model: Any) -> State:
    """The tensors that PEFT saves."""
    from peft import get_peft_model_state_dict

    return {name: value.detach() for name, value in get_peft_model_state_dict(model).items()}


def load_peft_state(model: Any, state: State) -> None:
    """Give PEFT's model the tensors of ``state``."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, state)


def peft_config(model: Any, base: nn.Module) -> dict[str, Any]:
    """What PEFT writes into ``adapter_config.json``."""
    config = model.peft_config["default"].to_dict()
    return {**config, "inference_mode": True, "base_model_name_or_path": str(getattr(base.config, "name_or_path", ""))}


def check_peft() -> None:
    """Raise `MissingDependency` without PEFT."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise MissingDependency(f"this method is PEFT's ({error}): pip install 'graft-rag[adapters]'") from error


def targets(model: nn.Module, asked: str | tuple[str, ...], method: str) -> list[str]:
    """Names of the layers for ``asked``: "all" linear layers of the blocks, "attention" (what reads its input), or endings of names.

    Raises `AdapterError` if there are none, naming the layers there are, and `InputError` if none are asked for.
    """
    if not asked:
        raise InputError(f'{method}: targets is empty; name endings of linear layers, "attention" or "all"')
    known = [name for name, _ in linears(model)]
    if asked == "all":
        return known
    if asked == "attention":
        return [name for block in blocks(model) for name in block.attention.inner]
    endings = (asked,) if isinstance(asked, str) else asked
    found = [name for name in known if f".{name}".endswith(tuple(f".{ending}" for ending in endings))]
    if not found:
        ends = sorted({name.rpartition(".")[2] for name in known})
        raise AdapterError(
            f"{method}: no layer of {type(model).__name__} is called {' or '.join(endings)}; its linear layers are called {', '.join(ends)}"
        )
    return found
