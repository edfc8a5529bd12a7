from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.self_rag.scores import Segment
from generators.self_rag.short_form import ShortForm, choice_of, votes
from rag.core.errors import CorpusError, PromptTooLong
from rag.core.trace import Judged, Retrieved, TextDelta, TokensWritten
from tests.generators.conftest import ScriptedRetriever
from tests.generators.self_rag.conftest import Spoken, deltas, heard, tokens, writer

TEXTS = ["one", "two", "three"]


def answer(segments: dict[str, Segment], choices=(), k=5, texts=TEXTS, retriever=None, max_tokens=20, wants=1.0, **settings):
    spoken = Spoken(lambda passage, answer: segments[passage], wants)
    form = ShortForm(writer(spoken, **settings), k, max_tokens, choices)
    return heard(form.answer("Which?", "en", retriever or ScriptedRetriever(texts), None))


def scored(text: str, support: float, relevance: float = 0.0, utility: float = 0.0) -> Segment:
    return Segment(text, relevance=relevance, support=support, utility=utility, tokens=tokens(text))


def test_one_retrieval_and_the_best_passage_answers():
    retriever = ScriptedRetriever(TEXTS)
    segments = {"p1": scored("A", 0.1, 0.9), "p2": scored("B", 1.0, 0.9), "p3": scored("C", 0.9, 0.1)}
    found, events, here = answer(segments, retriever=retriever)
    assert found.text == "B"
    assert [hit.passage.id for hit in found.sources] == ["p1", "p2", "p3"]
    assert found.citations == ()
    assert found.notes == ("written from source 2 ('p2'), whose support is 1.00",)
    assert [call[:2] for call in retriever.calls] == [("Which?", 5)]
    assert here.counts == {
        "sentences": 1,
        "triggered": 1,
        "retrievals": 1,
        "segments": 3,
        "logprob": pytest.approx(-0.1),
        "logprob_tokens": 1,
    }
    assert isinstance(events[0], Retrieved)
    assert deltas(events) == ["B"]
    assert "segment from 'p2': score 1.900, ISREL 0.900, ISSUP 1.000, ISUSE 0.000, likelihood 0.905" in here.notes


def test_whoever_listens_hears_each_judgement_and_how_sure_the_model_was_of_the_answer():
    segments = {"p1": scored("A", 0.1, 0.9), "p2": scored("B", 1.0, 0.9, 0.5), "p3": scored("C", 0.9, 0.1)}
    _, events, _ = answer(segments)
    judged = [event for event in events if isinstance(event, Judged)]
    assert [(event.text, event.source) for event in judged] == [("A", "p1"), ("B", "p2"), ("C", "p3")]
    assert judged[1] == Judged("B", "p2", pytest.approx(2.15), 0.9, 1.0, 0.5, pytest.approx(math.exp(-0.1)))
    assert events[-2:] == [TextDelta("B"), TokensWritten((("B", pytest.approx(math.exp(-0.1))),))]


def test_a_segment_that_hard_constraints_leave_out_is_told_as_dropped():
    segments = {"p1": Segment("A", contradicted=True, tokens=tokens("A")), "p2": scored("B", 0.5)}
    _, events, _ = answer(segments, texts=TEXTS[:2], hard_constraints=True)
    assert [event.dropped for event in events if isinstance(event, Judged)] == [True, False]


def test_weights_of_0_leave_a_tie_that_the_first_passage_wins():
    segments = {"p1": scored("A", 0.1), "p2": scored("B", 1.0, 1.0, 1.0), "p3": scored("C", 0.9)}
    assert answer(segments, weights=(0, 0, 0))[0].text == "A"


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_the_weight_of_support_alone_chooses_the_best_supported(support, relevance):
    segments = {f"p{n + 1}": scored("ABC"[n], support[n], relevance[n], 1 - relevance[n]) for n in range(3)}
    assert answer(segments, weights=(0, 1, 0))[0].text == "ABC"[support.index(max(support))]


def test_the_likelihood_of_a_segment_counts_on_request():
    segments = {"p1": scored("A", 0.5), "p2": Segment("B", support=0.4, tokens=tokens("B", math.log(0.99)))}
    segments["p1"] = Segment("A", support=0.5, tokens=tokens("A", math.log(0.01)))
    assert answer(segments, texts=TEXTS[:2])[0].text == "A"
    assert answer(segments, texts=TEXTS[:2], seq_score=True)[0].text == "B"


SCORES = st.floats(-0.5, 2.5)
BALLOTS = st.lists(st.tuples(st.sampled_from(["true", "false", "unknown"]), SCORES), min_size=1, max_size=8)


def winner(ballots) -> str:
    segments = {f"p{n}": scored(text, score) for n, (text, score) in enumerate(ballots, start=1)}
    return answer(segments, ("true", "false", "unknown"), 9, ["x"] * len(ballots), weights=(0, 1, 0))[0].text


@given(BALLOTS.flatmap(lambda ballots: st.tuples(st.just(ballots), st.permutations(ballots))))
def test_permuting_passages_does_not_change_the_answer_from_a_closed_set(pair):
    assert winner(pair[0]) == winner(pair[1])


def test_votes_are_summed_exactly():
    ballots = [("true", 0.1), ("true", 0.2), ("true", 0.3)]
    assert votes(["true"], ballots) == votes(["true"], ballots[::-1]) == {"true": 0.6}


@given(BALLOTS)
def test_duplicating_a_passage_doubles_its_vote(ballots):
    choices = ("true", "false", "unknown")
    text = ballots[0][0]
    once, twice = votes(choices, ballots[:1]), votes(choices, [ballots[0], ballots[0]])
    assert twice[text] == 2 * once[text]
    doubled = votes(choices, [*ballots, *ballots])
    assert doubled == {choice: pytest.approx(2 * score) for choice, score in votes(choices, ballots).items()}


def test_identical_answers_are_summed_over_passages():
    segments = {"p1": scored("True.", 0.9), "p2": scored("false", 0.5), "p3": scored(" False, it is not", 0.6)}
    found, _, here = answer(segments, ("true", "false"))
    assert found.text == "false"
    assert found.notes == ("written from source 3 ('p3'), whose support is 0.60",)
    assert "votes: true 0.900, false 1.100" in here.notes
    assert answer(segments)[0].text == "True."


def test_answers_outside_the_closed_set():
    segments = {"p1": scored("The moon.", 0.9), "p2": scored("false", 0.5)}
    assert answer(segments, ("true", "false"), texts=TEXTS[:2])[0].text == "false"
    found, _, _ = answer({"p1": scored("The moon.", 0.9)}, ("true", "false"), texts=TEXTS[:1])
    assert found.text == "The moon."
    assert found.notes[0] == "the model named none of the choices true, false"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        (" TRUE.", "true"),
        ("It is false", "false"),
        ("untrue", None),
        ("It is neither true nor false", None),
        ("not enough information, true or not", "not enough information"),
        ("", None),
    ],
)
def test_which_choice_a_text_names(text, choice):
    assert choice_of(text, ("true", "false", "not", "not enough information")) == choice
    assert choice_of("答案为真。", ("真", "假")) == "真"


def test_without_a_wish_to_retrieve_nothing_is_searched():
    retriever = ScriptedRetriever(TEXTS)
    for settings in ({"mode": "never"}, {"mode": "adaptive", "wants": 0.1}):
        found, _, here = answer({"": scored(" A poem.", 0.0)}, retriever=retriever, **settings)
        assert (found.text, found.sources, found.notes) == ("A poem.", (), ())
        assert here.counts["triggered"] == 0
    assert retriever.calls == []


def test_hard_constraints_drop_what_is_not_supported():
    good, bad = scored("A", 0.3), Segment("B", relevance=1.0, support=0.4, contradicted=True)
    found, _, here = answer({"p1": good, "p2": bad}, texts=TEXTS[:2])
    assert found.text == "B"
    found, _, here = answer({"p1": good, "p2": bad}, texts=TEXTS[:2], hard_constraints=True)
    assert found.text == "A"
    assert any(note.endswith("dropped: no support") for note in here.notes)
    found, _, _ = answer({"p1": bad, "p2": bad}, texts=TEXTS[:2], hard_constraints=True)
    assert found.refused
    assert found.text == "I do not know."
    assert "hard_constraints" in found.notes[0]


def test_nothing_found_and_nothing_written():
    found, _, _ = answer({}, texts=[])
    assert (found.text, found.refused, found.notes) == ("I do not know.", True, ("the retriever found no passage",))
    found, _, _ = answer({"p1": Segment("")}, texts=TEXTS[:1])
    assert found.text == ""
    assert found.notes[0] == "the model wrote no text"
    found, _, _ = answer({"p1": Segment(" ", relevance=1.0, support=1.0), "p2": scored("B", 0.1)}, texts=TEXTS[:2])
    assert found.text == "B"


def test_a_cut_answer_is_named():
    found, _, _ = answer({"p1": Segment("A long", cut=True)}, texts=TEXTS[:1])
    assert found.notes[0] == "the answer was cut off at max_tokens=20"


def test_passages_that_do_not_fit_are_dropped():
    texts = ["one", "word " * 300, "three"]
    segments = {"p1": scored("A", 0.1), "p3": scored("C", 0.9)}
    found, _, here = answer(segments, texts=texts, window=100)
    assert found.text == "C"
    assert "dropped 'p2': it does not fit the window of 100 tokens" in here.notes
    with pytest.raises(PromptTooLong, match="none of 1 passages fits"):
        answer({}, texts=texts[1:2], window=100)


def test_a_retriever_that_fails_is_heard():
    class Failing:
        async def asearch(self, query, k=None, filter=None):
            raise CorpusError("the corpus is empty")

    with pytest.raises(CorpusError, match="the corpus is empty"):
        answer({}, retriever=Failing())


def test_all_passages_are_written_from_at_once():
    class Counting(Spoken):
        running = most = 0

        async def segment(self, *args):
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0)
            self.running -= 1
            return await super().segment(*args)

    spoken = Counting(lambda passage, answer: scored("A", 0.1))
    asyncio.run(ShortForm(writer(spoken), 3, 20, ()).answer("Which?", "en", ScriptedRetriever(TEXTS), None))
    assert spoken.most == 3
