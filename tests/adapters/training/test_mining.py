from __future__ import annotations

import pytest

from adapters.training.data import Related
from adapters.training.mining import Mining, mine
from rag.core.errors import InputError
from rag.core.types import Hit, Passage

SCORES = {"the answer": 0.8, "an answer nobody marked": 0.79, "near": 0.7, "nearer": 0.75, "far": 0.2, "the other answer": 0.74}


def search(questions: list[str], k: int) -> list[list[Hit]]:
    ranked = sorted(SCORES, key=lambda text: -SCORES[text])[:k]
    return [[Hit(Passage(text, text), SCORES[text], rank) for rank, text in enumerate(ranked, 1)] for _ in questions]


def similarity(questions: list[str], passages: list[str]) -> list[float]:
    return [SCORES[passage] for passage in passages]


def found(records: list[Related], options: Mining) -> list[tuple[str, ...]]:
    scored = similarity if options.share is not None else None
    return [each.record.negatives for each in mine(records, search, options, scored)]


def test_hits_too_near_to_the_positive_are_left_out() -> None:
    record = Related("q", "the answer", ())
    assert found([record], Mining(2, share=0.95)) == [("nearer", "the other answer")]
    assert found([record], Mining(2, share=0.9)) == [("near", "far")]
    assert found([record], Mining(2, share=None)) == [("an answer nobody marked", "nearer")]
    [mined] = mine([record], search, Mining(2, share=0.9), similarity)
    assert mined.near == 3


def test_a_positive_that_is_far_below_the_zero_has_negatives_below_it_only() -> None:
    scores = {"own": -0.2, "a": -0.205, "b": -0.3}
    hits = [Hit(Passage(text, text), score, 1) for text, score in scores.items()]
    [mined] = mine([Related("q", "own", ())], lambda questions, k: [hits], Mining(share=0.9), lambda q, p: [-0.2])
    assert mined.record.negatives == ("b",)


def test_no_positive_of_the_same_question_is_a_negative() -> None:
    records = [Related("q", "the answer", ()), Related(" q", "the  other answer", ()), Related("r", "the answer", ())]
    options = Mining(5, share=None)
    one, other, apart = found(records, options)
    assert one == other == ("an answer nobody marked", "nearer", "near", "far")
    assert "the other answer" in apart


def test_what_holds_a_positive_or_is_part_of_it_is_no_negative() -> None:
    records = [Related("q", "an answer nobody marked", ()), Related("r", "near", ())]
    whole, part = found(records, Mining(6, share=None))
    assert "an answer nobody marked" not in whole
    assert "near" not in part
    assert "nearer" not in part


def test_the_first_hits_can_be_skipped_and_depth_ends_the_search() -> None:
    assert found([Related("q", "far", ())], Mining(1, skip=2, share=None)) == [("nearer",)]
    assert found([Related("q", "far", ())], Mining(2, depth=3, skip=1, share=None)) == [("an answer nobody marked", "nearer")]


def test_negatives_that_were_there_stay_in_front_and_come_once() -> None:
    assert found([Related("q", "the answer", ("nearer", "own"))], Mining(2, share=0.95)) == [("nearer", "own", "the other answer", "near")]


def test_all_records_come_in_their_order_and_in_batches_of_searches() -> None:
    asked: list[int] = []

    def counted(questions: list[str], k: int) -> list[list[Hit]]:
        asked.append(len(questions))
        return search(questions, k)

    records = [Related(f"q{number}", "the answer", ()) for number in range(600)]
    mined = list(mine(records, counted, Mining(1, share=None)))
    assert [each.record.question for each in mined] == [record.question for record in records]
    assert asked == [256, 256, 88]


def test_a_share_needs_scores_of_any_pair() -> None:
    with pytest.raises(InputError, match="share=None"):
        list(mine([Related("q", "the answer", ())], search, Mining()))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"depth": 0}, {"skip": -1}, {"share": 0}, {"share": 1.1}, {"skip": 97}, {"count": True}])
def test_wrong_options(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="mining: "):
        Mining(**wrong)  # type: ignore[arg-type]
