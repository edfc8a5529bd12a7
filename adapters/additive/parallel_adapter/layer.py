"""One parallel adapter."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F


class ParallelBottleneck(nn.Module):
    """s (W_up relu(W_down x + b_down) + b_up): [..., d_in] to [..., d_out] through m = ``bottleneck`` (He et al. 2022, section 3.3)."""

    def __init__(self, width: int, out: int, bottleneck: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, out)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the feed-forward's output, in the precision of ``x``."""
        change: Tensor = self.up(F.relu(self.down(x.to(self.down.weight.dtype))))
        return (self.scale * change).to(x.dtype)
