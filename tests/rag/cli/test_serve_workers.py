from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.rag.cli.conftest import Rag
from tests.rag.cli.served import Server, search_file, served

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_what_comes_in_through_any_worker_is_there_through_all(shelf: Path, tmp_path: Path) -> None:
    with served(tmp_path, search_file(tmp_path / "p.yaml", shelf, 5), "--uploads", "--workers", "2") as server:
        server.answering(2)
        callers = [server.to(0), server.to(1)]
        for number, caller in enumerate(callers):
            sent = {"documents": [{"id": f"new{number}.txt", "text": f"The zeppelin number {number} floats."}]}
            status, job = caller.get("/v1/documents", sent)
            assert status == 202
            for other in callers:
                assert server.until(lambda other=other, job=job: other.get(f"/v1/jobs/{job['id']}")[1]["status"] == "done")
                assert other.hits("zeppelin") == number + 1
        assert callers[1].get("/v1/documents/new0.txt") == callers[0].get("/v1/documents/new0.txt")
        questions = 'graft_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 4.0'
        for caller in callers:
            assert questions in caller.get("/metrics")[1]
            # What is asked for and not counted is told to the others every second.
            server.until(lambda caller=caller: 'graft_jobs{kind="documents",status="done"} 2.0' in caller.get("/metrics")[1], 5)
        pids = server.workers().values()
        server.process.kill()  # a leader that cannot say goodbye
        server.process.wait()
        server.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_killed_worker_is_started_anew_and_the_other_answers_meanwhile(shelf: Path, tmp_path: Path) -> None:
    with served(tmp_path, search_file(tmp_path / "p.yaml", shelf, 5), "--uploads", "--workers", "2") as server:
        server.answering(2)
        reader, before = server.to(1), server.workers()
        os.kill(before[0], signal.SIGKILL)
        server.until(lambda: server.workers().get(0) != before[0])
        assert reader.hits("suit") == 1
        status, body = reader.get("/v1/jobs")
        assert (status, body["error"]["code"]) == (503, "writer_unavailable")
        server.until(lambda: reader.get("/v1/jobs")[0] == 200)
        assert server.workers()[1] == before[1]
        assert "worker 0 of 2 was ended by SIGKILL (the kernel's, if memory ran out), and is started anew in" in server.said()
        pids = server.workers().values()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert list(server.temporary.iterdir()) == []
        assert "Traceback" not in server.said()


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_changes_the_pipeline_without_a_failed_question(workers: int, shelf: Path, tmp_path: Path) -> None:
    file = search_file(tmp_path / "p.yaml", shelf, 1)
    with served(tmp_path, file, "--workers", str(workers)) as server:
        server.answering(workers)
        callers = [server.to(number if workers > 1 else None) for number in range(workers)]
        seen: list[list[int]] = [[] for _ in callers]
        done = threading.Event()

        def ask(number: int) -> None:
            while not done.is_set():
                seen[number].append(callers[number].hits("suit capsule minutes"))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        try:
            search_file(file, shelf, 2)
            server.process.send_signal(signal.SIGHUP)
            server.until(lambda: all(2 in hits for hits in seen))
            file.write_text("nodes:\n  search: {type: Nothing}\n")
            server.process.send_signal(signal.SIGHUP)
            server.until(lambda: server.said().count("was not reloaded, the old one goes on:") == workers)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert all(set(hits) == {1, 2} and hits == sorted(hits) for hits in seen)
        assert [caller.hits("suit capsule minutes") for caller in callers] == [2] * workers
        assert "there is no component 'Nothing'" in server.said()


def test_a_file_that_cannot_be_served_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("nodes:\n  search: {type: Nothing}\n")
    server = Server(tmp_path, tmp_path / "p.yaml", "--workers", "3")
    assert server.process.wait(90) == 2
    assert server.said().count("there is no component 'Nothing'") == 1
    assert list(server.temporary.iterdir()) == []
    server.temporary.rmdir()


def test_fewer_questions_than_workers_are_refused(rag: Rag, shelf: Path) -> None:
    result = rag("serve", "--corpus", shelf, "--workers", "4", "--running", "3")
    assert (result.exit_code, "cannot be shared out among 4 workers" in result.stderr) == (2, True)


def test_the_model_server_of_several_workers_is_run_by_their_leader(rag: Rag, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, led = [], []
    monkeypatch.setattr("rag.cli.serve.supervisor_of", lambda *given: made.append(given) or SimpleNamespace(url="http://127.0.0.1:7/v1"))
    monkeypatch.setattr("rag.cli.serve.lead", lambda *given: led.append(given))
    given = ("--engine", "vllm", "--start", "--workers", "2", "--port", "0")
    assert rag("serve", "--corpus", shelf, *given).exit_code == 0
    ((number, host, port, engine, *_),) = led
    assert (number, host, port, engine.url, len(made)) == (2, "127.0.0.1", 0, "http://127.0.0.1:7/v1", 1)
