from __future__ import annotations

import asyncio
import math
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from generators.models import local
from generators.models.decoding import Writing
from generators.models.local import Local
from rag.core.errors import InputError, MissingCapability, ModelError, PromptTooLong
from rag.core.registry import configuration
from rag.core.trace import Span, span
from rag.core.types import Generation, Message, Sampling

PROMPTS = ["the cat", "a stop string ends", "Paris is the capital of", "北京是", "z", "the dog ran to the cat and the dog ran to the cat"]


def first_difference(a: Generation, b: Generation) -> float | None:
    """How far apart the two best tokens were where two greedy texts part, or None if they do not."""
    for x, y in zip(a.tokens, b.tokens, strict=False):
        if x.id != y.id:
            return x.top[0][2] - x.top[1][2]
    return None if len(a.tokens) == len(b.tokens) else math.inf


def test_batched_greedy_equals_one_by_one(tiny: Local) -> None:
    sampling = Sampling(max_tokens=24, logprobs=2)
    alone = [tiny.generate(prompt, sampling) for prompt in PROMPTS]
    batched = tiny.generate_many(PROMPTS, sampling)
    for one, other in zip(alone, batched, strict=True):
        difference = first_difference(one, other)
        assert difference is None or difference < 1e-4
        if difference is None:
            assert one.text == other.text
            assert [t.logprob for t in one.tokens] == pytest.approx([t.logprob for t in other.tokens], abs=1e-4)


def test_the_calls_of_a_batch_keep_their_own_sampling(tiny: Local) -> None:
    samplings = [Sampling(max_tokens=n, logprobs=0, temperature=t, seed=5) for n, t in ((3, 0.0), (9, 0.8), (1, 0.0), (6, 1.2))]

    async def together() -> list[Generation]:
        return await asyncio.gather(*(tiny.agenerate("the cat", s) for s in samplings))

    for sampling, generation in zip(samplings, asyncio.run(together()), strict=True):
        assert [t.id for t in generation.tokens] == [t.id for t in tiny.generate("the cat", sampling).tokens]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_logprobs_are_those_of_a_plain_forward_pass(tiny: Local, plain: SimpleNamespace, prompt: str) -> None:
    torch = pytest.importorskip("torch")
    bias = {5: -3.0, 40: 2.0}
    got = tiny.generate(prompt, Sampling(max_tokens=12, logprobs=3, temperature=0.7, top_p=0.9, seed=1, logit_bias=bias))
    before = plain.tokenizer(prompt)["input_ids"]
    with torch.inference_mode():
        logits = plain.model(torch.tensor([before + [t.id for t in got.tokens]])).logits[0, len(before) - 1 : -1]
    logprobs = logits.log_softmax(-1)
    for token, row in zip(got.tokens, logprobs, strict=True):
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
        best = row.topk(3)
        assert [i for i, _, _ in token.top] == best.indices.tolist()
        assert [value for _, _, value in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_tokens_tile_the_text_and_no_broken_character_is_shown(tiny: Local, seed: int) -> None:
    got = tiny.generate("北京", Sampling(max_tokens=40, temperature=1.5, seed=seed, logprobs=0))
    assert "".join(got.text[t.start : t.end] for t in got.tokens) == got.text
    assert all(t.text == got.text[t.start : t.end] for t in got.tokens)
    assert not got.text.endswith("�")
    assert got.generated_tokens == len(got.tokens)


def test_characters_of_several_tokens_belong_to_their_last_one(tiny: Local, plain: SimpleNamespace) -> None:
    text = "好😀"
    ids = plain.tokenizer(text)["input_ids"]
    assert len(ids) > len(text)
    got = tiny.score("the cat", text)
    assert [t.id for t in got.tokens] == ids
    assert [t.text for t in got.tokens if t.text] == ["好", "😀"]
    assert (got.tokens[-1].start, got.tokens[-1].end) == (1, 2)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_stop_string_cuts_text_and_tokens(tiny: Local, prompt: str) -> None:
    whole = tiny.generate(prompt, Sampling(max_tokens=30, logprobs=0))
    assert len(whole.text) > 6
    stop = whole.text[4:6]
    cut = tiny.generate(prompt, Sampling(max_tokens=30, logprobs=0, stop=("never", stop)))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish == "stop"
    assert "".join(t.text for t in cut.tokens) == cut.text
    assert cut.generated_tokens >= len(cut.tokens)


def test_length_and_end_token_are_told_apart(tiny: Local, plain: SimpleNamespace) -> None:
    assert tiny.generate("the cat", Sampling(max_tokens=3)).finish == "length"
    end = plain.tokenizer.eos_token_id
    ended = tiny.generate("the cat", Sampling(max_tokens=3, logit_bias={end: 100.0}, logprobs=0))
    assert (ended.text, ended.finish, ended.generated_tokens) == ("", "stop", 1)
    assert [(t.id, t.text) for t in ended.tokens] == [(end, "")]


def test_a_seed_repeats_and_another_differs(tiny: Local) -> None:
    def write(seed: int | None) -> str:
        return tiny.generate("the cat", Sampling(max_tokens=30, temperature=1.0, seed=seed)).text

    assert write(1) == write(1)
    assert len({write(seed) for seed in (1, 2, 3, 4)}) > 1
    assert len({write(None) for _ in range(4)}) > 1


def test_a_penalty_on_what_was_written_forbids_to_repeat_it(tiny: Local) -> None:
    def kinds(**penalty: float) -> int:
        return len({token.id for token in tiny.generate("the cat", Sampling(max_tokens=30, logprobs=0, **penalty)).tokens})  # type: ignore[arg-type]

    assert kinds() < kinds(presence_penalty=2.0)
    assert kinds() < kinds(frequency_penalty=2.0)
    assert kinds(presence_penalty=-2.0, frequency_penalty=-2.0) <= kinds()


def test_penalties_are_those_of_openai() -> None:
    torch = pytest.importorskip("torch")
    row = Writing([0], Sampling(presence_penalty=0.5, frequency_penalty=0.25))
    row.begin(lambda ids: "", str, torch.device("cpu"))
    for token in (1, 1, 2):
        row.take(token, torch.zeros(4), frozenset())
    assert row.choose(torch.tensor([0.0, 1.02, 0.76, 0.0])) == 1  # 1.02 - 0.5 - 2 * 0.25 = 0.02, 0.76 - 0.5 - 0.25 = 0.01
    assert row.choose(torch.tensor([0.0, 1.01, 0.77, 0.0])) == 2
    assert row.choose(torch.tensor([0.0, 0.99, 0.74, 0.005])) == 3
    logits = torch.tensor([0.0, 1.0, 0.0, 0.0])
    row.choose(logits)
    assert logits.tolist() == [0.0, 1.0, 0.0, 0.0]  # log-probabilities are the model's own


def test_a_tiny_top_p_is_greedy(tiny: Local) -> None:
    greedy = tiny.generate("the cat", Sampling(max_tokens=20)).text
    assert tiny.generate("the cat", Sampling(max_tokens=20, temperature=1.0, top_p=1e-6, seed=3)).text == greedy


def test_top_p_draws_only_from_the_smallest_set_that_reaches_it(tiny: Local, plain: SimpleNamespace) -> None:
    torch = pytest.importorskip("torch")
    with torch.inference_mode():
        row = plain.model(torch.tensor([plain.tokenizer("the cat")["input_ids"]])).logits[0, -1].softmax(-1)
    ranked = row.sort(descending=True)
    size = int((ranked.values.cumsum(-1) < 0.6).sum()) + 1
    drawn = {tiny.generate("the cat", Sampling(1, 1.0, 0.6, seed=s, logprobs=0)).tokens[0].id for s in range(60)}
    assert drawn <= set(ranked.indices[:size].tolist())
    assert len(drawn) > 1


def test_logit_bias_forces_and_forbids(tiny: Local, plain: SimpleNamespace) -> None:
    forced = plain.tokenizer("cat")["input_ids"][-1]
    got = tiny.generate("the", Sampling(max_tokens=4, logprobs=0, logit_bias={forced: 100.0}))
    assert [t.id for t in got.tokens] == [forced] * 4
    best = tiny.generate("the", Sampling(max_tokens=1, logprobs=0)).tokens[0].id
    assert tiny.generate("the", Sampling(max_tokens=1, logprobs=0, logit_bias={best: -100.0})).tokens[0].id != best


def test_log_probabilities_of_named_tokens(tiny: Local) -> None:
    wide = tiny.generate("The pump", Sampling(max_tokens=4, logprobs=20))
    named = tuple(wide.tokens[0].top[place][0] for place in (7, 0, 3))
    narrow = tiny.generate("The pump", Sampling(max_tokens=4, logprob_ids=named))
    assert narrow.text == wide.text
    assert narrow.tokens[0].top == tuple(wide.tokens[0].top[place] for place in (0, 3, 7))  # best first
    assert [{id for id, _, _ in token.top} for token in narrow.tokens] == [set(named)] * 4
    with pytest.raises(InputError, match="at most 20 token ids"):
        tiny.generate("x", Sampling(logprob_ids=tuple(range(21))))
    with pytest.raises(InputError, match="names the token 999999"):
        tiny.generate("x", Sampling(logprob_ids=(999999,)))


def test_an_answer_that_was_begun_is_continued(tiny: Local) -> None:
    chat = [Message("user", "Who keeps the lamp?")]
    whole = tiny.generate(chat, Sampling(max_tokens=8, logprobs=0))
    cut = whole.tokens[3].start
    begun = [*chat, Message("assistant", whole.text[:cut])]
    assert asyncio.run(tiny.acount(begun)) == asyncio.run(tiny.acount(chat)) + len(asyncio.run(tiny.aencode(whole.text[:cut])))
    ids = tiny._encode(begun)
    assert ids[: len(tiny._encode(chat))] == tiny._encode(chat)  # nothing ends the turn or opens another
    assert tiny._encode([*chat, Message("assistant", "")]) == tiny._encode(chat)


def test_a_text_that_is_enough_ends(tiny: Local) -> None:
    whole = tiny.generate("The pump", Sampling(max_tokens=12, logprobs=0))
    enough = len(whole.text) // 2
    part = tiny.generate("The pump", Sampling(max_tokens=12, logprobs=0, until=lambda text: len(text) >= enough))
    assert part.finish == "stop"
    assert whole.text.startswith(part.text)
    assert enough <= len(part.text) < len(whole.text)
    assert part.generated_tokens == len(part.tokens) < whole.generated_tokens
    assert "".join(token.text for token in part.tokens) == part.text
    with pytest.raises(InputError, match="until is None or a function"):
        tiny.generate("x", Sampling(until=True))  # type: ignore[arg-type]


def test_logit_bias_beyond_the_vocabulary(tiny: Local) -> None:
    with pytest.raises(InputError, match=r"token 99999.*0 to 299"):
        tiny.generate("the", Sampling(logit_bias={99999: 1.0}))


def test_score_is_the_sum_of_log_softmax(tiny: Local, plain: SimpleNamespace) -> None:
    torch = pytest.importorskip("torch")
    pairs = [("the cat", " sat on the mat"), ("Paris is", "北京"), ("a", "b"), ("the dog ran to", " the cat" * 8)]

    async def together() -> list[Generation]:
        return await asyncio.gather(*(tiny.ascore(*pair) for pair in pairs))

    for (prompt, continuation), got in zip(pairs, asyncio.run(together()), strict=True):
        before, after = plain.tokenizer(prompt)["input_ids"], plain.tokenizer(continuation)["input_ids"]
        with torch.inference_mode():
            logprobs = plain.model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1].log_softmax(-1)
        expected = [float(row[token]) for row, token in zip(logprobs, after, strict=True)]
        assert [t.logprob for t in got.tokens] == pytest.approx(expected, abs=1e-4)
        assert got.logprob == pytest.approx(sum(expected), abs=1e-3)
        assert got.text == "".join(t.text for t in got.tokens) == continuation


def test_score_agrees_with_generate(tiny: Local) -> None:
    ascii_only = dict.fromkeys([0, 1, *range(96, 260)], -100.0)
    compared = 0
    for prompt in PROMPTS:
        written = tiny.generate(prompt, Sampling(max_tokens=4, logprobs=0, logit_bias=ascii_only))
        scored = tiny.score(prompt, written.text)
        if [t.id for t in scored.tokens] == [t.id for t in written.tokens]:  # else the text is not tokenised as it was written
            compared += 1
            assert scored.logprob == pytest.approx(written.logprob, abs=1e-3)
    assert compared


@pytest.mark.parametrize("stop", [(), ("a",), ("at", "the")])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_streamed_pieces_join_to_the_generation(tiny: Local, prompt: str, stop: tuple[str, ...]) -> None:
    sampling = Sampling(max_tokens=30, stop=stop, logprobs=0)
    *pieces, last = tiny.stream(prompt, sampling)
    assert isinstance(last, Generation)
    assert "".join(str(piece) for piece in pieces) == last.text == tiny.generate(prompt, sampling).text
    assert all(isinstance(piece, str) and piece for piece in pieces)


def test_a_stream_that_is_left_early_stops_the_row(tiny: Local) -> None:
    async def leave() -> str:
        stream = tiny.astream("the cat", Sampling(max_tokens=100))
        async for piece in stream:
            await stream.aclose()  # type: ignore[attr-defined]
            return str(piece)
        return ""

    assert asyncio.run(leave())
    assert tiny.generate("the cat", Sampling(max_tokens=2)).generated_tokens == 2


def test_a_cancelled_call_leaves_the_others_alone(tiny: Local) -> None:
    async def cancel() -> tuple[list[Generation], bool]:
        tasks = [asyncio.ensure_future(tiny.agenerate(prompt, Sampling(max_tokens=60))) for prompt in PROMPTS]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        rest = await asyncio.gather(*tasks[1:])
        await asyncio.wait([tasks[0]])
        return rest, tasks[0].cancelled() or tasks[0].done()

    rest, ended = asyncio.run(cancel())
    assert ended
    assert [g.text for g in rest] == [tiny.generate(p, Sampling(max_tokens=60)).text for p in PROMPTS[1:]]


def test_chat_prompts_are_rendered_once(tiny: Local, plain: SimpleNamespace) -> None:
    messages = [Message("system", "a"), Message("user", "the cat")]
    rendered = "<|start|>system\na<|end|><|start|>user\nthe cat<|end|><|start|>assistant\n"
    assert tiny.count(messages) == len(plain.tokenizer(rendered)["input_ids"])
    assert tiny.generate(messages, Sampling(max_tokens=8)).text == tiny.generate(rendered, Sampling(max_tokens=8)).text


def test_prompts_up_to_the_window(tiny: Local) -> None:
    assert tiny.window == 128
    word = "z"
    assert tiny.count(word) == 1
    full = tiny.generate(word * 127, Sampling(max_tokens=50))
    assert (full.prompt_tokens, full.generated_tokens, full.finish) == (127, 1, "length")
    with pytest.raises(PromptTooLong, match=r"128 tokens.*holds 128"):
        tiny.generate(word * 128)
    assert len(tiny.score(word * 100, word * 28).tokens) == 28
    with pytest.raises(PromptTooLong, match=r"129 tokens together.*holds 128 tokens:"):
        tiny.score(word * 100, word * 29)


def test_empty_continuation(tiny: Local) -> None:
    with pytest.raises(InputError, match="continuation is empty"):
        tiny.score("a", "")


def test_each_call_has_a_span_with_its_counters(tiny: Local) -> None:
    async def run() -> Span:
        with span("test") as here:
            await tiny.agenerate("the cat", Sampling(max_tokens=3))
            await tiny.ascore("the cat", " sat")
            async for _ in tiny.astream("the cat", Sampling(max_tokens=4)):
                pass
        return here

    here = asyncio.run(run())
    taken = tiny.count("the cat")
    assert [call.node for call in here.children] == [f"chat {tiny.name}", f"score {tiny.name}", f"chat {tiny.name}"]
    assert [call.counts["generated_tokens"] for call in here.children] == [3, 0, 4]
    assert [call.counts["prompt_tokens"] for call in here.children] == [taken, taken + tiny.count(" sat"), taken]
    assert [call.output for call in here.children] == ["length", "stop", "length"]
    assert (here.counts, here.total("calls")) == ({}, 3)


def test_no_tokens_unless_asked(tiny: Local) -> None:
    assert tiny.generate("the cat", Sampling(max_tokens=3)).tokens == ()


def test_batches_are_larger_than_one(tiny_folder: Any) -> None:
    model = Local(str(tiny_folder), device="cpu", max_batch=4)
    model.generate("a", Sampling(max_tokens=1))
    sizes: list[int] = []
    work = model._shared.batcher.work
    model._shared.batcher.work = lambda jobs: sizes.append(len(jobs)) or work(jobs)  # type: ignore[func-returns-value]
    model.generate_many(["the cat"] * 12, Sampling(max_tokens=2))
    assert sum(sizes) == 12
    assert max(sizes) > 1
    assert max(sizes) <= 4


def test_arguments_are_checked_and_kept(tiny_folder: Any) -> None:
    assert configuration(Local("x", max_batch=3)) == {"model": "x", "max_batch": 3}
    with pytest.raises(InputError, match="dtype is one of"):
        Local(dtype="int8")
    with pytest.raises(InputError, match="max_batch"):
        Local(max_batch=0)
    assert configuration(Local(adapter="mine")) == {"adapter": "mine"}
    assert Local().capabilities == {"logprobs", "score", "logit_bias", "token_ids", "prefix", "adapters"}


def test_a_folder_that_holds_no_model(tmp_path: Any) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        Local(str(tmp_path)).generate("a")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot load the model"):
        Local(str(tmp_path)).generate("a")


def test_a_model_without_a_chat_template(tiny_folder: Any) -> None:
    model = Local(str(tiny_folder), device="cpu")
    model._shared.loaded().tokens._tokenizer.chat_template = None
    with pytest.raises(MissingCapability, match="chat template"):
        model.generate([Message("user", "hi")])


def test_those_who_wait_for_the_weights_leave_the_threads_of_the_loop_alone(tiny_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    loads: list[str] = []
    load = local._load

    def slowly(*names: str) -> Any:
        loads.append(names[0])
        assert gate.wait(30)
        return load(*names)

    monkeypatch.setattr(local, "_load", slowly)
    model = Local(str(tiny_folder), device="cpu")

    async def scenario() -> list[int]:
        waiting = [asyncio.create_task(model.acount("the cat")) for _ in range(100)]
        await asyncio.sleep(0.05)
        waiting.pop().cancel()
        try:
            async with asyncio.timeout(10):
                await asyncio.to_thread(str)
        finally:
            gate.set()
        return await asyncio.gather(*waiting)

    assert len(set(asyncio.run(scenario()))) == 1
    assert loads == [str(tiny_folder)]


def test_a_device_that_is_not_there(tiny_folder: Any) -> None:
    with pytest.raises(ModelError, match="nowhere"):
        Local(str(tiny_folder), device="nowhere").generate("a")


def test_the_embedded_model_answers(embedded: Local) -> None:
    got = embedded.generate([Message("user", "What is the capital of France?")], Sampling(max_tokens=20, logprobs=1))
    assert "Paris" in got.text
    assert got.finish == "stop"
    assert "<|" not in got.text
    assert embedded.window == 8192
    assert embedded.score("The capital of France is", " Paris").logprob > embedded.score("The capital of France is", " Banana").logprob
