from __future__ import annotations

import itertools
from functools import reduce

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from generators.self_rag.long_form import LongForm, Path
from generators.self_rag.scores import Segment
from tests.generators.conftest import ScriptedRetriever
from tests.generators.self_rag.conftest import Spoken, deltas, heard, tokens, writer

TEXTS = ["one", "two", "three"]


def answer(write, beam=2, depth=7, k=5, texts=TEXTS, max_tokens=300, wants=1.0, language="en", retriever=None, **options):
    spoken = Spoken(write, wants)
    form = LongForm(writer(spoken, **options), k, max_tokens, beam, depth)
    found, events, here = heard(form.answer("Which?", language, retriever or ScriptedRetriever(texts), None))
    return found, events, here, spoken


def piece(text: str, support: float, ended=False, **other) -> Segment:
    return Segment(text, support=support, ended=ended, tokens=tokens(text), **other)


def test_segments_are_cited_each_by_its_passage():
    def write(passage, answer):
        last = "Two" in answer
        support = {("p2", False): 0.9, ("p1", False): 0.4, ("p1", True): 0.8, ("p2", True): 0.4}.get((passage, bool(answer)), 0.1)
        return piece({"": "One."}.get(answer, "Two.") if not last else "Three.", support, ended=bool(answer))

    found, _, here, _ = answer(write)
    assert found.text == "One. [2] Two. [1]"
    assert [(c.number, c.passage.id, found.text[c.start : c.end], c.supported, c.valid) for c in found.citations] == [
        (2, "p2", "[2]", 0.9, True),
        (1, "p1", "[1]", 0.8, True),
    ]
    assert [hit.passage.id for hit in found.sources] == ["p1", "p2", "p3"]
    assert found.notes == ()
    assert here.counts["steps"] == 2
    assert here.counts["retrievals"] == 3  # the root, then each of two paths
    assert "kept the path of 2 segments with score 0.720" in here.notes


def test_a_weakly_supported_segment_has_an_invalid_citation():
    found, _, _, _ = answer(lambda passage, answer: piece("One.", 0.49, ended=True), texts=TEXTS[:1])
    assert [(c.supported, c.valid) for c in found.citations] == [(0.49, False)]


def test_later_queries_hold_the_last_segment():
    retriever = ScriptedRetriever(TEXTS[:1])
    texts = iter(["One.", "Two.", "Three."])
    answer(lambda passage, answer: piece(next(texts), 1.0), beam=1, depth=3, retriever=retriever)
    assert [call[0] for call in retriever.calls] == ["Which?", "Which? One.", "Which? Two."]


def test_the_model_reads_its_own_text_without_markers():
    texts = {"": "One.", "One.": "Two.", "One. Two.": "\nThree."}
    found, _, _, spoken = answer(lambda passage, answer: piece(texts[answer], 1.0), beam=1, depth=3, texts=TEXTS[:1])
    assert [call[1] for call in spoken.calls] == list(texts)
    assert found.text == "One. [1] Two. [1]\nThree. [1]"


def test_chinese_segments_join_without_a_space():
    texts = {"": "第一句。", "第一句。": "第二句。"}
    _, _, _, spoken = answer(lambda passage, answer: piece(texts.get(answer, ""), 1.0), beam=1, depth=3, texts=TEXTS[:1])
    assert spoken.calls[-1][1] == "第一句。第二句。"


def test_it_stops_at_its_depth_and_says_so():
    numbers = itertools.count()
    found, _, here, _ = answer(lambda passage, answer: piece(f"Sentence {next(numbers)}.", 1.0), beam=1, depth=4, texts=TEXTS[:1])
    assert found.notes == ("the answer was stopped after depth=4 segments",)
    assert here.counts["steps"] == len(found.citations) == 4


def test_it_stops_at_max_tokens_and_says_so():
    numbers = itertools.count()
    write = lambda passage, answer: piece(f"a b {next(numbers)}.", 1.0)  # noqa: E731
    found, _, _, spoken = answer(write, beam=1, texts=TEXTS[:1], max_tokens=6)
    assert found.notes == ("the answer was cut off at max_tokens=6",)
    assert [call[2] for call in spoken.calls] == [6, 3]
    found, _, _, _ = answer(lambda passage, answer: piece("a b", 1.0, ended=True, cut=True), texts=TEXTS[:1], max_tokens=2)
    assert found.notes == ("the answer was cut off at max_tokens=2",)


@pytest.mark.parametrize("second", ["", "  ", "One."])
def test_an_empty_or_repeated_segment_ends_the_answer(second):
    found, _, here, _ = answer(lambda passage, answer: piece(second if answer else "One.", 1.0))
    assert found.text == "One. [1]"
    assert found.notes == ()
    assert here.counts["steps"] == 2


def test_a_passage_from_which_nothing_comes_loses_to_one_from_which_something_does():
    found, _, _, _ = answer(lambda passage, answer: piece("One." if passage == "p3" else "", 0.01, ended=True))
    assert found.text == "One. [1]"


def test_nothing_found_nothing_written_nothing_supported():
    found, _, _, _ = answer(lambda passage, answer: piece("x", 1.0), texts=[], language="zh")
    assert (found.text, found.refused, found.notes) == ("我不知道。", True, ("the retriever found no passage",))
    found, _, _, _ = answer(lambda passage, answer: piece("", 1.0))
    assert (found.text, found.refused, found.notes) == ("I do not know.", True, ("the model wrote no text",))
    found, _, _, _ = answer(lambda passage, answer: piece("x", 1.0, contradicted=True), hard_constraints=True)
    assert found.refused
    assert "hard_constraints" in found.notes[0]


def test_hard_constraints_drop_what_is_not_supported():
    write = lambda passage, answer: piece(passage, 0.2 if passage == "p1" else 0.4, ended=True, contradicted=passage != "p1")  # noqa: E731
    assert answer(write)[0].text == "p2 [1]".replace("[1]", "[2]")
    assert answer(write, hard_constraints=True)[0].text == "p1 [1]"


def test_a_segment_without_retrieval_bears_no_marker_and_leaves_the_score():
    texts = {"": "One.", "One.": "Two.", "One. Two.": "Three."}
    wants = lambda answer: 0.9 if answer == "One." else 0.0  # noqa: E731
    found, _, here, spoken = answer(
        lambda passage, answer: piece(texts[answer], 0.5, ended=answer == "One. Two."), wants=wants, mode="adaptive", texts=TEXTS[:1]
    )
    assert found.text == "One. Two. [1] Three."
    assert [call[0] for call in spoken.calls] == ["", "p1", ""]
    assert here.counts["retrievals"] == here.counts["triggered"] == 1
    assert here.counts["sentences"] == 3
    assert "kept the path of 3 segments with score 0.500" in here.notes


def test_what_all_paths_share_is_told_at_once():
    def write(passage, answer):
        if not answer:
            return piece("One.", 1.0 if passage == "p1" else 0.01)
        return piece(f"After {passage}.", 0.9, ended=True)

    found, events, _, _ = answer(write, texts=TEXTS[:2])
    assert deltas(events) == ["One. [1]", " After p1. [1]"]
    assert type(events[0]).__name__ == "Retrieved"
    kinds = [type(event).__name__ for event in events]
    # Told when the second step shows that both surviving paths begin with it, before anything else follows.
    assert kinds.count("TextDelta") == 2
    assert found.text == "One. [1] After p1. [1]"


def test_with_one_path_each_segment_is_told_when_it_is_accepted():
    texts = {"": "One.", "One.": "Two."}
    _, events, _, _ = answer(lambda passage, answer: piece(texts.get(answer, ""), 1.0), beam=1, texts=TEXTS[:1])
    kinds = [type(event).__name__ for event in events]
    assert kinds[:8] == ["Retrieved", "Judged", "TextDelta", "TokensWritten"] * 2


def test_markers_and_control_text_of_the_model_point_nowhere():
    found, _, _, _ = answer(lambda passage, answer: piece("See [9].", 1.0, ended=True), texts=TEXTS[:1])
    assert found.text == "See (9). [1]"
    assert len(found.citations) == 1


def test_two_bad_segments_do_not_make_a_good_path():
    bad = Path().grown(Segment("a"), -0.5).grown(Segment("b"), -0.5)
    assert bad.score == 0
    assert bad.total == -1.0


TREE = st.lists(st.floats(-0.5, 2.5), min_size=12, max_size=12)


def rank(path) -> tuple[float, float]:
    return reduce(lambda product, score: product * max(score, 0.0), path, 1.0), sum(path)


def run_tree(scores, beam, depth=2, k=3):
    """Each passage offers one segment per step, with a score of its own for each path that leads there."""

    def write(passage, answer):
        row = 0 if not answer else int(answer[1])
        return piece(f"p{passage[1]}-{len(answer)};", scores[3 * row + int(passage[1]) - 1], ended=bool(answer))

    return answer(write, beam=beam, depth=depth, k=k, weights=(0, 1, 0))[0]


def numbers(found) -> tuple[int, ...]:
    return tuple(citation.number for citation in found.citations)


@settings(max_examples=40, deadline=None)
@given(TREE)
@example([2.5, 1.2, 0.0, 0.1, 0.0, 0.0, 1.2, 0.0, 0.0, 0.0, 0.0, 0.0])  # the largest sum is not the largest product
def test_a_beam_as_wide_as_the_tree_is_an_exhaustive_search(scores):
    paths = list(itertools.product(range(3), range(3)))
    valued = [rank((scores[a], scores[3 * (a + 1) + b])) for a, b in paths]
    found = numbers(run_tree(scores, beam=9))
    assert rank((scores[found[0] - 1], scores[3 * found[0] + found[1] - 1])) == max(valued)


@settings(max_examples=40, deadline=None)
@given(TREE)
def test_one_path_takes_the_best_segment_at_each_step(scores):
    first = max(range(3), key=lambda n: (max(scores[n], 0.0), scores[n]))
    found = numbers(run_tree(scores, beam=1))
    second = max(range(3), key=lambda n: rank((scores[first], scores[3 * (first + 1) + n])))
    assert found == (first + 1, second + 1)


def test_one_path_from_one_passage_is_the_greedy_chain():
    texts = ["One.", "Two.", "Three."]
    chain = lambda passage, answer: piece(texts[answer.count(".")], 0.0, ended=answer.count(".") == 2)  # noqa: E731
    found, _, here, spoken = answer(chain, beam=1, k=1)
    assert found.text == "One. [1] Two. [1] Three. [1]"
    assert len(spoken.calls) == here.counts["retrievals"] == 3
