from __future__ import annotations

from pathlib import Path

import pytest

from rag.core.errors import InputError
from rag.serve.settings import Limits, Worker


@pytest.mark.parametrize(("of", "running", "waiting"), [(1, 64, 128), (2, 3, 1), (3, 64, 0), (4, 4, 7)])
def test_shares_add_up_and_nobody_has_none(of: int, running: int, waiting: int) -> None:
    shares = [Worker(number, of, Path()).share(Limits(running, waiting, 5.0)) for number in range(of)]
    assert sum(share.running for share in shares) == running
    assert sum(share.waiting for share in shares) == waiting
    assert min(share.running for share in shares) >= 1
    assert {share.seconds for share in shares} == {5.0}


def test_fewer_questions_than_workers_cannot_be_shared() -> None:
    with pytest.raises(InputError, match="among 3 workers"):
        Worker(0, 3, Path()).share(Limits(running=2))


def test_number_0_writes() -> None:
    assert [Worker(number, 3, Path()).writes for number in range(3)] == [True, False, False]
