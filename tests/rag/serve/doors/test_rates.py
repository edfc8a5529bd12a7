from __future__ import annotations

import math
from typing import Any

import pytest
from starlette.testclient import TestClient

from rag.core.errors import InputError
from rag.serve.doors.rates import Addresses, Limiter, Rates


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_then_a_steady_rate(clock: Clock) -> None:
    limiter = Limiter(60, 3, clock=clock)
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 1]
    clock.now += 0.5
    assert limiter.take("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert [limiter.take("a"), limiter.take("a")] == [0, 1]
    clock.now += 3_600
    assert [limiter.take("a") for _ in range(4)] == [0, 0, 0, 1]


def test_each_caller_has_its_own(clock: Clock) -> None:
    limiter = Limiter(60, 1, clock=clock)
    assert [limiter.take(caller) for caller in "aba"] == [0, 0, 1]


@pytest.mark.parametrize("per_minute", [0.5, 7, 59, 60, 61, 1_000, 1e-3])
def test_who_waits_as_told_is_let_in_and_nobody_gets_more(clock: Clock, per_minute: float) -> None:
    limiter = Limiter(per_minute, 2, clock=clock)
    begin, taken = clock.now, 0
    for _ in range(200):
        wait = limiter.take("a")
        if wait:
            clock.now += wait
            assert limiter.take("a") == 0
        taken += 1
    assert taken <= (clock.now - begin) * per_minute / 60 + 2 + 1e-3


def test_a_refusal_costs_nothing(clock: Clock) -> None:
    limiter = Limiter(60, 1, clock=clock)
    limiter.take("a")
    for _ in range(100):
        assert limiter.take("a") == 1
    clock.now += 1
    assert limiter.take("a") == 0


def test_memory_is_bounded_and_the_longest_unheard_of_goes_first(clock: Clock) -> None:
    limiter = Limiter(60, 1, most=3, clock=clock)
    for caller in ("a", "b", "c", "a", "d"):
        limiter.take(caller)
    assert len(limiter) == 3
    assert limiter.take("a") == 1
    assert limiter.take("b") == 0
    limiter = Limiter(60, 1, clock=clock)
    for number in range(10_500):
        limiter.take(str(number))
    assert len(limiter) == 10_000


def test_a_rate_alone_allows_a_minutes_worth_at_once() -> None:
    assert Limiter(30).burst == 30
    assert Limiter(0.5).burst == 1


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (math.nan, 1), (math.inf, 1), (60, 0), (60, -1)])
def test_limits_that_are_none_are_an_error(rate: float, burst: int) -> None:
    with pytest.raises(InputError):
        Limiter(rate, burst)


async def behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


def client(
    clock: Clock, rate: float = 60, burst: int = 1, *, key: str | None = None, peer: str = "10.0.0.9", trusted: Any = ()
) -> TestClient:
    rates = Rates(behind, Limiter(rate, burst, clock=clock), Addresses(trusted))

    async def named(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and key is not None:
            scope["state"]["caller"] = scope["headers"] and dict(scope["headers"]).get(b"x-key", key.encode()).decode()
        await rates(scope, receive, send)

    return TestClient(named, client=(peer, 50_000))


def test_too_many_are_429_in_the_usual_shape(clock: Clock) -> None:
    http = client(clock)
    assert http.get("/v1/models").status_code == 200
    reply = http.get("/v1/models")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["type"]) == (429, "rate_limit_exceeded", "rate_limit_error")
    assert (reply.headers["retry-after"], "try again in 1 s" in error["message"]) == ("1", True)
    clock.now += 1
    assert http.get("/v1/models").status_code == 200


@pytest.mark.parametrize(("rate", "seconds"), [(6_000, 1), (60, 1), (59, 2), (7, 9), (6, 10), (1, 60), (0.5, 120)])
def test_retry_after_is_whole_seconds_that_suffice(clock: Clock, rate: float, seconds: int) -> None:
    http = client(clock, rate)
    http.get("/")
    assert http.get("/").headers["retry-after"] == str(seconds)
    clock.now += seconds
    assert http.get("/").status_code == 200


def test_health_checks_are_not_counted(clock: Clock) -> None:
    http = client(clock)
    for _ in range(5):
        for path in ("/healthz", "/livez", "/readyz"):
            assert http.get(path).status_code == 200
    assert http.get("/v1/models").status_code == 200
    assert http.get("/healthz").status_code == 200
    assert http.post("/healthz").status_code == 429
    assert http.get("/healthz/").status_code == 429
    assert http.get("http://testserver//healthz").status_code == 429


def test_a_key_is_counted_apart_from_others_at_its_address(clock: Clock) -> None:
    http = client(clock, key="key_1")
    assert [http.get("/v1/models", headers={"x-key": key}).status_code for key in ("key_1", "key_2", "key_1")] == [200, 200, 429]


def test_nobody_takes_another_address_by_saying_so(clock: Clock) -> None:
    http = client(clock)
    assert http.get("/").status_code == 200
    for said in ("1.2.3.4", "1.2.3.5, 10.0.0.9", "127.0.0.1"):
        assert http.get("/", headers={"x-forwarded-for": said, "forwarded": f"for={said}", "x-real-ip": said}).status_code == 429


def test_clients_behind_a_trusted_proxy_are_told_apart(clock: Clock) -> None:
    http = client(clock, trusted=["10.0.0.0/24"])
    assert [http.get("/", headers={"x-forwarded-for": said}).status_code for said in ("1.2.3.4", "1.2.3.5", "6.6.6.6, 1.2.3.4")] == [
        200,
        200,
        429,
    ]


def address(peer: Any, *said: str, trusted: Any = ("10.0.0.0/8", "2001:db8::7")) -> str:
    headers = [(b"x-forwarded-for", value.encode()) for value in said]
    return Addresses(trusted).of({"client": peer, "headers": headers})


@pytest.mark.parametrize(
    ("peer", "said", "found"),
    [
        ("9.9.9.9", ["1.2.3.4"], "9.9.9.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
        ("10.0.0.1", ["6.6.6.6, 1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["1.2.3.4, nonsense"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4,"], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
        ("10.0.0.1", ["[2001:db8:1:2:3:4:5:6]:5678"], "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", ["::ffff:1.2.3.4"], "1.2.3.4"),
        ("2001:db8::7", ["1.2.3.4"], "1.2.3.4"),
        ("2001:db8:1:2:aaaa::1", [], "2001:db8:1:2::/64"),
    ],
)
def test_whose_address_it_is(peer: str, said: list[str], found: str) -> None:
    assert address((peer, 1), *said) == found


@pytest.mark.parametrize("peer", [None, ("", 0), ("/run/graft.sock", 0), ("testclient", 1)])
def test_a_socket_without_an_address_believes_nobody(peer: Any) -> None:
    assert address(peer, "1.2.3.4") == "unknown"


@pytest.mark.parametrize("network", ["*", "", "proxy.example.org", "10.0.0.7/8", "10.0.0.0/33"])
def test_what_is_no_network_is_an_error_at_the_start(network: str) -> None:
    with pytest.raises(InputError, match="trusted proxies"):
        Addresses([network])
