from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from io import StringIO

import pytest

from rag.core.errors import InputError
from rag.serve.observe.logs import configure_logging, current_request_id, during, keep_private, masked

log = logging.getLogger("graft.test")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, silenced = logging.getLogger(), logging.getLogger("uvicorn.access")
    levels = {name: logging.getLogger(name).level for name in ("graft", "uvicorn")}
    before = list(root.handlers), list(silenced.handlers), silenced.propagate
    yield
    root.handlers, silenced.handlers, silenced.propagate = before
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def written(format: str, level: str = "info") -> StringIO:
    stream = StringIO()
    logging.getLogger().handlers = []  # pytest's own keep what they hear for its report, which not every character can reach
    configure_logging(format, level, stream)
    return stream


def test_a_json_line_has_time_level_logger_message_and_request() -> None:
    stream = written("json")
    with during("r-1"):
        log.warning("it is %s", "late", extra={"fields": {"seconds": 0.5}})
    log.info("outside")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {"level": "warning", "logger": "graft.test", "message": "it is late", "request_id": "r-1", "seconds": 0.5}
    assert second["request_id"] is None


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize("bad", ["\n", "\r", "\x1b[31m", "\x00", "\x85", "\u2028", "\u2029", "\u202e", "\ud800", "\x9b"])
def test_no_character_breaks_a_line_or_turns_it_round(bad: str, format: str) -> None:
    stream = written(format)
    log.info('before%safter", "level": "error', bad, extra={"fields": {"caller": f"x{bad}y"}})
    text = stream.getvalue()
    assert text.endswith("\n")
    assert len(text[:-1].splitlines()) == 1
    assert bad not in text[:-1]
    if format == "json":
        line = json.loads(text)
        assert line["level"] == "info"
        assert line["message"] == f'before{bad}after", "level": "error'
        assert line["caller"] == f"x{bad}y"


def test_lines_of_a_traceback_cannot_pass_for_records() -> None:
    stream = written("text")
    try:
        raise ValueError("one\n2026-01-01T00:00:00.000Z error [-] graft: forged")
    except ValueError:
        log.exception("it failed")
    first, *rest = stream.getvalue().splitlines()
    assert "error [-] graft.test: it failed" in first
    assert any("forged" in line for line in rest)
    assert all(line.startswith("    | ") for line in rest)


def test_the_id_follows_tasks_and_threads() -> None:
    stream = written("json")

    async def scenario() -> None:
        with during("r-2"):
            task = asyncio.create_task(asyncio.to_thread(log.info, "in a thread"))
        log.info("after")
        await task

    asyncio.run(scenario())
    assert {line["message"]: line["request_id"] for line in map(json.loads, stream.getvalue().splitlines())} == {
        "in a thread": "r-2",
        "after": None,
    }
    assert current_request_id() == ""


def test_private_text_is_masked_however_it_is_quoted() -> None:
    secret = 'who has the "red"\nkey?'
    long = "x1 " * 100
    keep_private("outside of a request nothing is kept")
    assert masked("outside of a request nothing is kept") == "outside of a request nothing is kept"
    with during("r"):
        for text in (secret, long, "ab"):
            keep_private(text)
        assert masked(f"{secret} {secret!r} {json.dumps(secret)}") == """[private] '[private]' "[private]\""""
        assert masked(f"cut: {long[:79]}…").startswith("cut: [private]")
        assert masked("abc") == "abc"
    assert masked(secret) == secret


def test_levels_and_the_logs_of_others() -> None:
    stream = written("json", "warning")
    log.info("graft")
    logging.getLogger("uvicorn.error").info("uvicorn")
    logging.getLogger("uvicorn.access").error('127.0.0.1 "GET /v1/documents/private?key=1"')
    logging.getLogger("httpx").info("HTTP Request: POST http://model/v1")
    logging.getLogger("elsewhere").warning("heard")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["heard"]


def test_configuring_again_replaces() -> None:
    first, second = written("json"), written("text")
    log.info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_unknown_formats_and_levels_are_refused() -> None:
    with pytest.raises(InputError, match="json or text, not 'xml'"):
        configure_logging("xml")
    with pytest.raises(InputError, match="debug, info, warning, error, not 'loud'"):
        configure_logging("json", "loud")
