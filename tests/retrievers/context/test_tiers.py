from __future__ import annotations

import threading

import pytest
import torch

from rag.core.errors import ConfigError, InputError
from retrievers.context.numbers import Packed
from retrievers.context.tiers import Key, Tier


def packed(bytes: int) -> Packed:
    return {"keys": torch.zeros(bytes, dtype=torch.uint8)}


def key(name: str) -> Key:
    return name, "text"


def names(tier: Tier, of: str) -> str:
    return "".join(name for name in of if key(name) in tier)


def test_the_cheap_one_leaves_first() -> None:
    tier = Tier("ram", 30)
    for name, cost in (("a", 3.0), ("b", 1.0), ("c", 2.0), ("d", 9.0)):
        tier.put(key(name), packed(10), cost)
    assert names(tier, "abcd") == "acd"


def test_the_large_one_leaves_first() -> None:
    """Although it cost more, and came later."""
    tier = Tier("ram", 60)
    tier.put(key("s"), packed(10), cost=4.0)
    tier.put(key("l"), packed(50), cost=5.0)
    tier.put(key("n"), packed(20), cost=4.0)
    assert names(tier, "sln") == "sn"


def test_the_one_that_is_asked_for_stays() -> None:
    """Although it came first and was asked for before the others came."""
    tier = Tier("ram", 30)
    tier.put(key("a"), packed(10), cost=1.0)
    tier.get(key("a"))
    for name in "bcd":
        tier.put(key(name), packed(10), cost=1.0)
    assert names(tier, "abcd") == "acd"


def test_the_clock_lets_old_fame_fade() -> None:
    tier = Tier("ram", 20)
    tier.put(key("famous"), packed(10), cost=1.0)
    for _ in range(9):
        tier.get(key("famous"))
    for number in range(30):
        tier.put(key(f"new{number}"), packed(10), cost=1.0)
        if key("famous") not in tier:
            break
    assert 5 < number < 20  # without a clock it would never leave, and without its fame at once


def test_what_does_not_fit_is_returned_and_not_kept() -> None:
    tier = Tier("ram", 10)
    tier.put(key("a"), packed(10), cost=1.0)
    assert tier.put(key("b"), packed(11), cost=9.0)["keys"].nbytes == 11
    assert (key("a") in tier, key("b") in tier, tier.bytes, tier.evictions) == (True, False, 10, 0)
    none = Tier("ram", 0)
    none.put(key("a"), packed(1), cost=1.0)
    assert len(none) == 0


def test_it_counts() -> None:
    tier = Tier("ram", 20)
    assert tier.get(key("a")) is None
    tier.put(key("a"), packed(20), cost=1.0)
    tier.put(key("a"), packed(20), cost=1.0)  # a second thread was as fast
    assert tier.bytes == 20
    assert tier.get(key("a")) is not None
    tier.put(key("b"), packed(20), cost=1.0)
    assert (tier.hits, tier.misses, tier.evictions, tier.bytes) == (1, 1, 1, 20)


def test_the_queue_does_not_grow_with_the_questions() -> None:
    tier = Tier("ram", 20)
    tier.put(key("a"), packed(10), cost=1.0)
    for _ in range(10_000):
        tier.get(key("a"))
    assert len(tier._queue._heap) < 100


def test_threads_never_exceed_the_bound() -> None:
    tier, failures = Tier("ram", 100), []

    def work(seed: int) -> None:
        try:
            for number in range(400):
                name = key(str((number * seed) % 37))
                if tier.get(name) is None:
                    tier.put(name, packed(1 + number % 30), cost=float(number % 5))
                assert tier.bytes <= 100
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 5, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert tier.bytes == sum(kept.bytes for kept in tier._kept.values())


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="'nonsense' is no device"):
        Tier("device", 10, "nonsense")
    with pytest.raises(ConfigError, match="no such GPU"):
        Tier("device", 10, "cuda:99")
    with pytest.raises(InputError, match="-1 bytes"):
        Tier("ram", -1)
