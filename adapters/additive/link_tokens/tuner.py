"""Link tokens on a model: ids behind its vocabulary, whose embeddings are ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapters.described import described
from adapters.reparameterised.lora.config import LoRA
from rag.core.errors import AdapterError

if TYPE_CHECKING:
    from adapters.additive.link_tokens.config import LinkTokens
    from adapters.contract import State, Worn

_LINKS, _LORA = "links", "lora."


class LinkedModel:
    """``options`` worn by ``model``: it takes `links` among its ``input_ids``. Its modules stay, and no text has these ids.

    They start as embeddings of the model's own, drawn with torch's generator (Lester et al. 2021, https://arxiv.org/abs/2104.08691,
    section 3.2: better than noise).
    """

    def __init__(self, model: nn.Module, options: LinkTokens) -> None:
        self._base = model
        self._options = options
        self._table = _embeddings(model)
        own = self._table.weight.detach()
        drawn = own[torch.randint(len(own), (options.count,)).to(own.device)]
        self._vectors = nn.Parameter(drawn.to(torch.promote_types(own.dtype, torch.float32)))
        self._lora: Worn | None = LoRA(options.r, 2.0 * options.r, targets="all").attach(model) if options.r else None
        self._hook = model.register_forward_pre_hook(self._embed, with_kwargs=True)

    @property
    def model(self) -> nn.Module:
        """The base model, in PEFT's wrapper if there is a LoRA."""
        return self._base if self._lora is None else self._lora.model

    def links(self) -> tuple[int, ...]:
        """Their ids: the first ones that the model has no embedding for."""
        return self._options.ids(self._table.num_embeddings)

    def leaves_text(self) -> bool:
        """Whether there is no LoRA."""
        return self._lora is None

    def trained(self) -> dict[str, nn.Parameter]:
        """The embeddings [count, width], and the LoRA's parameters under "lora."."""
        lora = {} if self._lora is None else self._lora.trained()
        return {_LINKS: self._vectors, **{f"{_LORA}{name}": parameter for name, parameter in lora.items()}}

    def state(self) -> State:
        """The same, the LoRA's as PEFT saves them."""
        lora = {} if self._lora is None else self._lora.state()
        return {_LINKS: self._vectors.detach(), **{f"{_LORA}{name}": tensor for name, tensor in lora.items()}}

    def load_state(self, state: State) -> None:
        """Copy the values in."""
        with torch.no_grad():
            self._vectors.copy_(state[_LINKS])
        if self._lora is not None:
            self._lora.load_state({name.removeprefix(_LORA): tensor for name, tensor in state.items() if name.startswith(_LORA)})

    def config(self) -> Mapping[str, Any]:
        """The method's name and options: PEFT has no such method."""
        return described(self._options, self._base)

    def remove(self) -> None:
        """Take the hook off, and the LoRA out."""
        self._hook.remove()
        if self._lora is not None:
            self._lora.remove()

    def _embed(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Give the base model embeddings in place of ids. A hook on its table would not do: that is asked for no id that it has not."""
        ids: Tensor | None = kwargs.get("input_ids", args[0] if args else None)
        if ids is None:  # the caller embeds
            return None
        beyond = ids - self._table.num_embeddings
        of_text: Tensor = self._table(ids.where(beyond < 0, 0))
        of_links = nn.functional.embedding(beyond.clamp(min=0), self._vectors).to(of_text.dtype)
        embedded = of_links.where((beyond >= 0)[..., None], of_text)
        given = {**kwargs, "inputs_embeds": embedded}
        return ((None, *args[1:]), given) if args else ((), {**given, "input_ids": None})


def _embeddings(model: nn.Module) -> nn.Embedding:
    config, can_generate = getattr(model, "config", None), getattr(model, "can_generate", None)
    table = model.get_input_embeddings() if can_generate is not None and can_generate() else None  # type: ignore[operator]
    if not isinstance(table, nn.Embedding) or getattr(config, "is_encoder_decoder", False):
        raise AdapterError(
            f"LinkTokens: {type(model).__name__} reads no passages that were encoded apart; looked for a decoder that writes text and has a"
            " table of embeddings (Llama-like models, GPT-NeoX, GPT-J)"
        )
    return table
