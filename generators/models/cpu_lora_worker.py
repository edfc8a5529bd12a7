"""What ``--worker-extension-cls`` names, so that each worker of a vLLM server on a CPU loads this module, and with it the mend."""

from __future__ import annotations

import vllm.lora.ops.torch_ops.lora_ops as defined
import vllm.lora.punica_wrapper.punica_cpu as used

from generators.models.cpu_lora import mend

mend(defined, used)


class BareRows:
    """vLLM adds its methods to the worker's; it has none."""
