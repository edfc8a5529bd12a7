"""Memory and seconds of a training step of one case of `benchmarks.adapters`, in a process of its own.

    python -m benchmarks.adapter_speed CASE --data ../shared/data

The last line printed is ``{"peak_mb", "loaded_mb", "s_per_step"}``. Peak memory is that of the whole process, libraries and weights
included: what a machine must have. ``loaded_mb`` is what it was before a method was put on the model; ``s_per_step`` is the median without
the first two steps, which warm up.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from adapters.training.options import Options
from benchmarks.adapter_cases import CASES, ENCODER
from benchmarks.claims import claim_pairs
from rag.core.errors import ConfigError, InputError
from retrievers.encoders import find

WARM_UP = 2
STEPS = 12
STATUS = Path("/proc/self/status")
"""Of Linux, whose ``ru_maxrss`` would count the memory of the process that started this one, too."""
PATIENCE = 600.0
"""Seconds that a case has."""


def measure(case: str, data: Path, batch: int, max_tokens: int) -> dict[str, Any]:
    """The figures of ``case``, from a new process. Raises `ConfigError` with its last words if it failed."""
    command = [sys.executable, "-m", "benchmarks.adapter_speed", case, "--data", str(data), "--batch", str(batch)]
    command += ["--max-tokens", str(max_tokens)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise ConfigError(f"{case}: the process that measures its steps failed: {done.stderr.strip()[-800:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def steps(case: str, data: Path, batch: int, max_tokens: int) -> dict[str, Any]:
    """The figures of ``case``, of this process, which has to be new."""
    from benchmarks.adapter_trial import trial

    run, options = (
        trial(find(ENCODER), claim_pairs(data), max_tokens),
        Options(lr=CASES[case].rates[0], steps=STEPS, batch=batch, keep="last"),
    )
    run.load()
    loaded = peak()
    seconds = run.seconds(run.adapted(CASES[case], options), options)
    return {"peak_mb": peak() / 1e6, "loaded_mb": loaded / 1e6, "s_per_step": statistics.median(seconds[WARM_UP:])}


def peak() -> int:
    """Most bytes that this process has had in memory."""
    if not STATUS.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("case", choices=list(CASES))
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--max-tokens", type=int, default=128)
    given = arguments.parse_args()
    try:
        print(json.dumps(steps(given.case, given.data, given.batch, given.max_tokens)))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
