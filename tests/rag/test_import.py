"""``import rag`` is for everybody, also for a client of a served model: it costs milliseconds and loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sentence_transformers", "faiss", "numba", "bm25s", "fastapi", "numpy", "httpx", "pydantic")


@pytest.mark.parametrize("modules", ["rag", "rag, retrievers, generators, tools, adapters"])
def test_importing_loads_nothing_heavy(modules: str) -> None:
    code = f"import sys, {modules}; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_import_takes_less_than_a_tenth_of_a_second() -> None:
    code = "import time; start = time.perf_counter(); import rag; print(time.perf_counter() - start)"
    times = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    assert min(times) < 0.1
