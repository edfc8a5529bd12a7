from __future__ import annotations

import asyncio
import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.decoupled.decoupled import Decoupled  # noqa: E402
from generators.decoupled.encoder import DecoupledEncoder  # noqa: E402
from generators.decoupled.memory import remember, write  # noqa: E402
from generators.decoupled.reader import Reader  # noqa: E402
from generators.models.decoding import Writing  # noqa: E402
from rag.core.errors import CorpusMismatch, CorpusNotFound, InputError, PromptTooLong  # noqa: E402
from rag.core.pipeline import Pipeline  # noqa: E402
from rag.core.registry import configuration, registered  # noqa: E402
from rag.core.trace import Span, TextDelta, listener, span  # noqa: E402
from rag.core.types import Answer, Sampling, SamplingRequest  # noqa: E402
from retrievers.context.build import build  # noqa: E402
from tests.generators.conftest import ScriptedRetriever  # noqa: E402
from tests.generators.decoupled import tiny  # noqa: E402
from tests.generators.decoupled.tiny import QUESTION, TEXTS  # noqa: E402

MAX = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("decoupled") / "model"
    tiny.model().save(made)
    return str(made)


@pytest.fixture(scope="module")
def encoder(folder: str) -> DecoupledEncoder:
    return DecoupledEncoder(folder, device="cpu")


@pytest.fixture(scope="module")
def store(encoder: DecoupledEncoder, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("decoupled") / "store"
    build(path, [(f"p{number}", text) for number, text in enumerate(TEXTS[:3], start=1)], encoder, "float32")
    return str(path)


def component(store: str, folder: str, encoder: DecoupledEncoder | None = None, **settings) -> Decoupled:
    made = Decoupled(store, folder, device="cpu", **{"max_tokens": MAX, **settings})
    if encoder is not None:  # one load for all tests
        made._reader = Reader(encoder, store)
    return made


def run(made: Decoupled, texts=TEXTS[:3], question: str = QUESTION, **asked) -> tuple[Answer, Span]:
    with span("answer") as here:
        answer = asyncio.run(made.run(question, ScriptedRetriever(texts), **asked))
    return answer, here


def expected(encoder: DecoupledEncoder, texts=TEXTS[:3]) -> str:
    model = encoder.loaded
    row = Writing(tiny.asked(model), Sampling(MAX))
    return write(model, remember(model, encoder.encode(texts)), row).text


def test_the_answer_is_the_decoders_over_stored_passages(folder, encoder, store):
    answer, here = run(component(store, folder, encoder))
    assert answer.text == expected(encoder)
    assert answer.text
    assert [hit.passage.text for hit in answer.sources] == TEXTS[:3]
    tokens = sum(map(len, encoder.tokenised(TEXTS[:3])))
    assert here.counts == {"retrievals": 1, "contexts_hit": 3, "contexts_missed": 0, "tokens_reused": tokens}
    assert here.children[0].counts["prompt_tokens"] == len(tiny.asked(encoder.loaded))  # passages are no part of it
    assert run(component(store, folder, encoder), TEXTS[:1])[0].text == expected(encoder, TEXTS[:1])


def test_a_miss_is_encoded_now_counted_and_kept(folder, encoder, store):
    made = component(store, folder, encoder, k=4)
    answer, here = run(made, [TEXTS[0], "the dog slept", TEXTS[2], TEXTS[3]])
    assert answer.text == expected(encoder, [TEXTS[0], "the dog slept", TEXTS[2], TEXTS[3]])
    assert (here.counts["contexts_hit"], here.counts["contexts_missed"]) == (2, 2)
    assert here.notes == ["passage 'p2' was encoded now: changed", "passage 'p4' was encoded now: absent"]
    assert run(made, [TEXTS[0], "the dog slept", TEXTS[2], TEXTS[3]])[1].counts["contexts_missed"] == 0


def test_damage_is_encoded_now(folder, encoder, store, tmp_path):
    shutil.copytree(store, tmp_path / "store")
    (file,) = (tmp_path / "store").rglob("contexts.safetensors")
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    answer, here = run(component(str(tmp_path / "store"), folder, encoder))
    assert answer.text == expected(encoder)
    assert here.counts["contexts_missed"] == 1
    assert "was encoded now: damaged" in here.notes[0]


def test_another_models_store_is_refused(folder, encoder, store, tmp_path):
    tiny.model(seed=4).save(tmp_path / "other")
    with pytest.raises(CorpusMismatch):
        run(component(store, str(tmp_path / "other")))
    with pytest.raises(CorpusNotFound):
        run(component(str(tmp_path / "none"), folder, encoder))


def test_pieces_reach_the_listener_in_order(folder, encoder, store):
    heard: list[object] = []
    with listener(heard.append):
        answer, _ = run(component(store, folder, encoder))
    pieces = [event.text for event in heard if isinstance(event, TextDelta)]
    assert "".join(pieces) == answer.text
    assert len(pieces) > 1


def test_questions_at_once_do_not_mix(folder, encoder, store):
    made = component(store, folder, encoder)
    orders = [TEXTS[:3], TEXTS[:1], TEXTS[:2]]

    async def all_at_once():
        return await asyncio.gather(*(made.run(QUESTION, ScriptedRetriever(texts)) for texts in orders * 3))

    assert [answer.text for answer in asyncio.run(all_at_once())] == [expected(encoder, texts) for texts in orders] * 3


def test_a_run_may_ask_for_other_sampling(folder, encoder, store):
    answer, here = run(component(store, folder, encoder), sampling=SamplingRequest(max_tokens=2))
    assert here.children[0].counts["generated_tokens"] == 2
    assert answer.finish == "length"


def test_a_cancelled_run_frees_the_model(folder, encoder, store):
    made = component(store, folder, encoder)
    rows = []
    answering = made._reader.answer
    made._reader.answer = lambda prepared, row: (rows.append(row), answering(prepared, row))[1]

    async def cancelled():
        task = asyncio.ensure_future(made.run(QUESTION, ScriptedRetriever(TEXTS)))
        while not rows:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert rows[0].cancelled


def test_questions_and_passages_that_cannot_be_read(folder, encoder, store):
    assert run(component(store, folder, encoder), [])[0].refused
    with pytest.raises(InputError, match="empty"):
        run(component(store, folder, encoder), question="  ")
    with pytest.raises(PromptTooLong, match="leaves no room"):
        run(component(store, folder, encoder), question="why " * 100)
    with pytest.raises(PromptTooLong, match="index smaller passages"):
        run(component(store, folder, encoder), ["the cat " * 100])


@pytest.mark.parametrize(
    ("store", "model", "settings", "said"),
    [
        ("", "folder", {}, "store is a folder"),
        (3, "folder", {}, "store is a folder"),
        ("store", "", {}, "model is the folder"),
        ("store", "folder", {"k": 0}, "k must be"),
        ("store", "folder", {"max_tokens": 0}, "max_tokens must be"),
        ("store", "folder", {"dtype": "int8"}, "dtype"),
    ],
)
def test_bad_settings_are_refused(store, model, settings, said):
    with pytest.raises(InputError, match=said):
        Decoupled(store, model, **settings)


def test_it_is_a_component_that_yaml_can_hold(folder):
    made = Decoupled("contexts", folder, k=2)
    assert configuration(made) == {"store": "contexts", "model": folder, "k": 2}
    assert registered("Decoupled") is Decoupled
    assert "type: Decoupled\n" in Pipeline().add("answer", made).to_yaml()
