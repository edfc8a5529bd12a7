from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rag.core.errors import InputError
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.shared import VARIABLE

_PROCESS = """
import json, sys
from pathlib import Path
from rag.serve.observe.metrics import Metrics
running, refused, jobs = json.loads(sys.argv[2])
metrics = Metrics({"graft": []}, Path(sys.argv[1]))
metrics.request_ended("/v1/models", "GET", 200, 0.1)
metrics.watch_queue(running=lambda: running, waiting=lambda: 0, refused=lambda: refused)
now = {("documents", "running"): 1}
metrics.watch_jobs(lambda: now)
metrics.text()
now = {("documents", "done"): 1} if jobs else {}
text = metrics.text()
sys.stdout.buffer.write(text)
"""


def scrape(folder: Path, running: int, refused: int, jobs: bool) -> dict[str, float]:
    """What a process of its own tells, after it has counted a request."""
    command = [sys.executable, "-c", _PROCESS, str(folder), json.dumps([running, refused, jobs])]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, VARIABLE: str(folder)}).stdout
    families = text_string_to_metric_families(text)
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_scrape_tells_the_sum_over_all_processes(tmp_path: Path) -> None:
    first = scrape(tmp_path, running=3, refused=5, jobs=True)
    second = scrape(tmp_path, running=4, refused=1, jobs=False)
    count = "graft_http_request_duration_seconds_count /v1/models"
    assert (first[count], second[count]) == (1, 2)
    assert (first["graft_num_requests_running"], second["graft_num_requests_running"]) == (3, 7)
    assert (first["graft_refused_requests_total"], second["graft_refused_requests_total"]) == (5, 6)
    assert second["graft_jobs documents done"] == 1
    assert second["graft_jobs documents running"] == 0
    assert second["process_resident_memory_bytes"] > first["process_resident_memory_bytes"] > 1e6
    assert "process_start_time_seconds" not in second


def test_a_process_that_was_not_started_for_it_cannot_share(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=VARIABLE):
        Metrics({}, tmp_path)
