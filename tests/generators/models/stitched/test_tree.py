"""The tree itself: what it finds, and what leaves it."""

from __future__ import annotations

import threading

import pytest
import torch

from generators.models.stitched.tree import Block, KnowledgeTree, Part, _Node
from rag.core.errors import InputError

ROOT, A, B, C = (1,), (2, 2), (3, 3, 3), (4,)


def part(bytes: int = 10) -> Part:
    half = torch.zeros(1, 1, 1, bytes // 2, dtype=torch.uint8)
    return Part(half, half.clone())


def filled(*paths: tuple[Block, ...], capacity: int = 1_000, cost: float = 1.0) -> KnowledgeTree:
    tree = KnowledgeTree(capacity)
    for path in paths:
        keep(tree, path, cost)
    return tree


def keep(tree: KnowledgeTree, path: tuple[Block, ...], cost: float = 1.0, bytes: int = 10) -> None:
    known = found(tree, path)
    tree.keep(path, [part(bytes) for _ in path[known:]], [cost for _ in path[known:]])


def found(tree: KnowledgeTree, path: tuple[Block, ...]) -> int:
    """How many of its blocks are there; nothing is worth more for that."""
    return len(tree._path(path))


def bytes_of(node: _Node) -> int:
    return node.part.bytes + sum(map(bytes_of, node.below.values()))


def test_the_longest_beginning_is_found_and_order_matters() -> None:
    tree = filled((ROOT, A, B))
    for path, blocks, tokens in (((ROOT, A, B, C), 3, 6), ((ROOT, A, C), 2, 3), ((ROOT, B, A), 1, 1), ((A, B), 0, 0), ((), 0, 0)):
        before = tree.tokens_reused
        assert len(tree.longest(path)) == blocks
        assert tree.tokens_reused - before == tokens
    assert (tree.hits, tree.misses) == (6, 1 + 1 + 2 + 2)


def test_what_is_kept_is_what_was_given() -> None:
    tree, parts = KnowledgeTree(), [part(), part(), part()]
    tree.keep((ROOT, A), parts[:2], [1.0, 1.0])
    tree.keep((ROOT, A, B), parts[2:], [1.0])
    assert all(one is other for one, other in zip(tree.longest((ROOT, A, B)), parts, strict=True))


def test_two_that_were_as_fast_keep_one() -> None:
    tree, first = KnowledgeTree(), part()
    tree.keep((ROOT, A), [part(), first], [1.0, 1.0])
    tree.keep((ROOT, A, B), [part(), part(), part()], [1.0, 1.0, 1.0])
    assert tree.longest((ROOT, A))[1] is first
    assert (found(tree, (ROOT, A, B)), tree.bytes) == (3, 30)


def test_leaves_leave_first_however_little_their_ancestors_are_worth() -> None:
    tree = KnowledgeTree(40)
    tree.keep((ROOT, A, B), [part(), part(), part()], [0.0, 0.0, 9.0])  # the first two cost nothing
    keep(tree, (ROOT, C), cost=1.0)
    keep(tree, (ROOT, (9,)), cost=5.0)
    assert (found(tree, (ROOT, C)), found(tree, (ROOT, A, B)), tree.evictions) == (1, 3, 1)
    keep(tree, (ROOT, (8,)), cost=100.0)
    assert (found(tree, (ROOT, (9,))), found(tree, (ROOT, A, B))) == (1, 3)
    keep(tree, (ROOT, (7,)), cost=200.0)
    assert found(tree, (ROOT, A, B)) == 2  # now its leaf, and what stands before it not yet
    keep(tree, (ROOT, (6,)), cost=300.0)
    assert found(tree, (ROOT, A)) == 1  # that was a leaf then
    assert tree.bytes == bytes_of(tree._root) == 40


@pytest.mark.parametrize(("frequent", "costs", "left"), [(False, (1.0, 2.0), A), (False, (2.0, 1.0), B), (True, (1.0, 2.0), B)])
def test_cost_and_frequency_decide(frequent: bool, costs: tuple[float, float], left: Block) -> None:
    tree = filled((ROOT,), capacity=30)
    for block, cost in zip((A, B), costs, strict=True):
        keep(tree, (ROOT, block), cost)
    for _ in range(2 if frequent else 0):
        tree.longest((ROOT, A))
    keep(tree, (ROOT, C))
    assert [block for block in (A, B, C) if found(tree, (ROOT, block)) == 1] == [left]


def test_the_large_one_leaves_first() -> None:
    tree = filled((ROOT,), capacity=70)
    keep(tree, (ROOT, A), cost=3.0, bytes=10)
    keep(tree, (ROOT, B), cost=4.0, bytes=50)
    keep(tree, (ROOT, C), cost=3.0, bytes=20)
    assert (found(tree, (ROOT, A)), found(tree, (ROOT, B)), found(tree, (ROOT, C))) == (2, 1, 2)


def test_what_does_not_fit_behind_its_own_beginning_moves_nobody_out() -> None:
    tree = filled((ROOT, A), (ROOT, B), capacity=30)
    keep(tree, (ROOT, A, C), bytes=20)  # 10 + 10 + 20 of 30
    assert (found(tree, (ROOT, A, C)), found(tree, (ROOT, B)), tree.evictions) == (2, 2, 0)
    keep(tree, (ROOT, A, C), bytes=10)
    assert (found(tree, (ROOT, A, C)), found(tree, (ROOT, B)), tree.evictions) == (3, 1, 1)
    nothing = filled((ROOT, A), capacity=0)
    assert (found(nothing, (ROOT,)), nothing.bytes) == (0, 0)


def test_what_lost_its_beginning_meanwhile_is_not_kept() -> None:
    tree = filled((ROOT, A), capacity=20)
    keep(tree, ((9,), (8,)))  # moves both out
    assert found(tree, (ROOT,)) == 0
    tree.keep((ROOT, A, B), [part()], [1.0])
    assert (found(tree, (ROOT, A, B)), tree.bytes, bytes_of(tree._root)) == (0, 20, 20)


def test_a_block_without_tokens_is_one_too() -> None:
    tree = KnowledgeTree(10)
    tree.keep(((), A), [Part(torch.zeros(1, 1, 0, 4), torch.zeros(1, 1, 0, 4)), part()], [0.0, 1.0])
    assert len(tree.longest(((), A))) == 2


def test_threads_never_exceed_the_bound_nor_leave_what_cannot_be_reached() -> None:
    tree, failures = KnowledgeTree(200), []

    def work(seed: int) -> None:
        try:
            for number in range(300):
                path = (ROOT, *((number * seed // step % 5,) for step in (1, 5, 25)))
                known = tree.longest(path)
                missing = len(path) - len(known)
                tree.keep(path, [part(10 + 2 * (number % 9)) for _ in range(missing)], [float(number % 4)] * missing)
                assert tree.bytes <= 200
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert tree.evictions > 100
    assert tree.bytes == bytes_of(tree._root)


def test_a_bound_below_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="-1 bytes"):
        KnowledgeTree(-1)
