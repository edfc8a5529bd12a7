"""A mend for vLLM 0.32's CPU build: requests of the base model that share a batch with adapters.

Rows of the base model carry the slot -1, with which the CPU kernels index the stacked adapters, so that these rows get what lies in the
last slot (https://github.com/vllm-project/vllm/pull/48421, open). Here what A makes of them is set to zero, and so the whole change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Shrink = Callable[..., None]
"""vLLM's ``bgmv_shrink(inputs [rows, in], stacked A, output [rows, r], slots [rows], scaling)``, which fills ``output``."""


def without_bare_rows(shrink: Shrink) -> Shrink:
    """``shrink``, which leaves zeros in rows whose slot is negative."""

    def mended(inputs: Tensor, weights: Tensor, output: Tensor, slots: Tensor, scaling: float = 1.0) -> None:
        shrink(inputs, weights, output, slots, scaling)
        output[: len(slots)].masked_fill_((slots < 0).unsqueeze(-1), 0)

    return mended


def mend(*modules: Any) -> None:
    """Put the mended function in place of ``bgmv_shrink`` in ``modules``: where it is defined, and where it was imported to."""
    mended = without_bare_rows(modules[0].bgmv_shrink)
    for module in modules:
        module.bgmv_shrink = mended
