"""One serial adapter."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SerialBottleneck(nn.Module):
    """h + W_up gelu(W_down h + b_down) + b_up: [..., d] to [..., d] through m = ``bottleneck`` (Houlsby et al. 2019, section 2.1)."""

    def __init__(self, width: int, bottleneck: int, std: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(linear.bias)

    def forward(self, h: Tensor) -> Tensor:
        """``h`` with the change added, in the precision of ``h``."""
        change: Tensor = self.up(F.gelu(self.down(h.to(self.down.weight.dtype))))
        return h + change.to(h.dtype)
