"""What `benchmarks.adapters` trains: the two baselines and every method, each with the learning rates that are tried.

Options are a method's defaults, but for what follows from the number of steps: AdaLoRA's plan, and how many examples a choice of entries
looks at. Rates are peaks of AdamW's, two a case, where a sketch of more rates showed that it learns; the frozen head, which the others
have to beat, gets three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.methods import registered
from benchmarks.adapter_baselines import FullFineTuning, HeadOnly

if TYPE_CHECKING:
    from adapters.contract import Method

ENCODER = "minilm"
LOOK = 256
"""Training examples that FishMask and Child-Tuning D measure Fisher information on, a gradient each."""


@dataclass(frozen=True)
class Case:
    """A method, and what it is tried with."""

    method: Callable[[int], Method]
    """The method for a run of so many steps."""
    rates: tuple[float, ...]
    head: tuple[str, ...] | None = None
    """As for `adapt`."""


def _plain(name: str, rates: tuple[float, ...], **options: object) -> Case:
    return Case(lambda steps: registered(name)(**options), rates)


def _adalora(steps: int) -> Method:
    """A tenth of the steps at the full rank, and the last third with the ranks that are left."""
    return registered("AdaLoRA")(tinit=steps // 10, tfinal=steps // 3)  # type: ignore[no-any-return]


CASES: Mapping[str, Case] = {
    "frozen": Case(lambda steps: HeadOnly(), (3e-3, 1e-2, 3e-2), ()),
    "full": Case(lambda steps: FullFineTuning(), (1e-4, 3e-4)),
    "serial_adapter": _plain("SerialAdapter", (1e-3, 3e-3)),
    "parallel_adapter": _plain("ParallelAdapter", (1e-4, 3e-4)),
    "prefix_tuning": _plain("PrefixTuning", (1e-3, 3e-3)),
    "p_tuning": _plain("PTuning", (1e-3, 3e-3)),
    "p_tuning_v2": _plain("PTuningV2", (1e-2, 3e-2)),
    "aprompt": _plain("APrompt", (1e-2, 3e-2)),
    "fish_mask": _plain("FishMask", (1e-3, 3e-3), examples=LOOK),
    "child_tuning_f": _plain("ChildTuning", (3e-4, 1e-3), variant="F"),
    "child_tuning_d": _plain("ChildTuning", (3e-4, 1e-3), variant="D", examples=LOOK),
    "cross_attention": _plain("CrossAttention", (3e-4, 1e-3)),
    "bitfit": _plain("BitFit", (3e-3, 1e-2)),
    "lora": _plain("LoRA", (1e-3, 3e-3)),
    "adalora": Case(_adalora, (3e-3, 1e-2)),
    "dora": _plain("DoRA", (1e-3, 3e-3)),
}
