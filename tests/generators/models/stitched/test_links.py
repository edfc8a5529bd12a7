"""Link tokens over stitched caches against one joint forward pass in which they, and the question, see all before them; in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from adapters import adapt
from adapters.additive.link_tokens.config import LinkTokens
from adapters.training.blocks import BlockTask, block_addend
from generators.models.decoding import Writing
from generators.models.stitched.decoder import Decoder
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.lessons import Lessons
from generators.models.stitched.prefix import PrefixReader
from generators.models.stitched.prompt import PASSAGES
from generators.models.stitched.reader import Reader
from generators.models.stitched.recompute import link_block, most_deviating, recomputed
from generators.models.stitched.stitch import in_a_row
from rag.core.errors import MissingCapability
from rag.core.types import Sampling
from tests.generators.models.stitched.conftest import CHUNKS, KINDS, QUESTION, llama, random
from tests.generators.models.stitched.test_lessons import LONG, RECORDS, NoStore

EXACT = 1e-12
COUNT = 3
VOCABULARY = 300


def model(kind: str) -> Any:
    torch.manual_seed(3)
    return random(KINDS[kind]() if kind else llama(max_position_embeddings=LONG))


def saved(folder: Path, kind: str, r: int) -> Path:
    adapted = adapt(model(kind), LinkTokens(COUNT, r))
    torch.manual_seed(6)
    for parameter in adapted.trained().values():
        torch.nn.init.normal_(parameter, std=0.3)
    adapted.save(folder)
    return folder


@pytest.fixture
def linked(tokenizer: Any, double: None, tmp_path: Path) -> Callable[..., Decoder]:
    def build(kind: str = "llama", r: int = 0) -> Decoder:
        return Decoder(model(kind), tokenizer, kind, str(saved(tmp_path / f"{kind}-{r}", kind, r)))

    return build


def with_links(decoder: Decoder) -> tuple[list[Any], list[int], list[int]]:
    """The chunks with links behind each; all their tokens; the block of each, 0 for links and question."""
    blocks, tokens, numbers = [], [], []
    for number, encoded in enumerate(LocalEncoder.over(decoder).encode_tokens(CHUNKS), start=1):
        blocks += [encoded, link_block(decoder)]
        tokens += [*encoded.tokens, *decoder.links]
        numbers += [number] * len(encoded.tokens) + [0] * COUNT
    return in_a_row(blocks), [*tokens, *QUESTION], [*numbers, *[0] * len(QUESTION)]


def joint(decoder: Decoder, tokens: Sequence[int], numbers: Sequence[int]) -> torch.Tensor:
    mask = block_addend(torch.tensor([list(numbers)]), torch.float64)
    places = torch.arange(len(tokens))[None]
    return decoder.forward(torch.tensor([list(tokens)]), places, DynamicCache(), mask, keep=len(QUESTION))[0]


@pytest.mark.parametrize(("kind", "r"), [*((kind, 0) for kind in sorted(KINDS)), ("llama", 2), ("qwen3", 2)])
def test_links_see_all_before_them(linked: Callable[..., Decoder], kind: str, r: int) -> None:
    decoder = linked(kind, r)
    assert decoder.links == tuple(range(VOCABULARY, VOCABULARY + COUNT))
    placed, tokens, numbers = with_links(decoder)
    cache, logits = recomputed(decoder, placed, QUESTION, placed[-1].end, 0.0, keep=0)
    assert cache.get_seq_length() == len(tokens)
    assert float((logits - joint(decoder, tokens, numbers)).abs().max()) <= EXACT
    blind = [number or 90 + place // 9 for place, number in enumerate(numbers)]  # links that see themselves at most
    blind[-len(QUESTION) :] = [0] * len(QUESTION)
    assert float((logits - joint(decoder, tokens, blind)).abs().max()) > 1e-3


def test_with_all_recomputed_it_is_ordinary_reading_of_passages_and_links(linked: Callable[..., Decoder]) -> None:
    decoder = linked()
    placed, tokens, _ = with_links(decoder)
    _, logits = recomputed(decoder, placed, QUESTION, placed[-1].end, 1.0, keep=0)
    assert float((logits - joint(decoder, tokens, [0] * len(tokens))).abs().max()) <= EXACT


def test_links_are_no_part_of_the_share(linked: Callable[..., Decoder]) -> None:
    decoder, rows = linked(), []
    placed, tokens, numbers = with_links(decoder)
    text = sum(map(len, CHUNKS))
    assert {numbers[place] for place in most_deviating(decoder, placed, text)} == {1, 2, 3}
    forward = decoder.forward
    decoder.forward = lambda ids, *rest, **named: (rows.append(ids.shape[1]), forward(ids, *rest, **named))[1]  # type: ignore[method-assign]
    recomputed(decoder, placed, QUESTION, placed[-1].end, 0.5)
    assert rows == [len(tokens) - len(QUESTION), -(-text // 2) + COUNT * len(CHUNKS) + len(QUESTION)]


def test_contexts_of_the_bare_model_serve_links_that_change_nothing_else(linked: Callable[..., Decoder], tokenizer: Any) -> None:
    bare = Decoder(model("llama"), tokenizer, "llama")
    alone, with_lora = linked("llama", 0), linked("llama", 2)
    assert alone.identity == bare.identity
    assert with_lora.identity.adapter is not None
    of_bare, of_alone, of_lora = (LocalEncoder.over(one).encode_tokens(CHUNKS)[0] for one in (bare, alone, with_lora))
    assert torch.equal(of_bare.keys, of_alone.keys)
    assert torch.equal(of_bare.values, of_alone.values)
    assert not torch.allclose(of_bare.values, of_lora.values)


def test_training_reads_what_answering_reads(linked: Callable[..., Decoder], tokenizer: Any, double: None) -> None:
    decoder = linked("", 2)
    bare = Decoder(model(""), tokenizer, "bare")
    task = BlockTask(tokenizer, LONG, Lessons(bare).prompt, links=decoder.links)
    examples = task.encode(RECORDS).examples
    encoder, stitched = LocalEncoder.over(decoder), torch.zeros((), dtype=torch.float64)
    for example in examples:
        *blocks, question, answer = example.parts
        placed = in_a_row([link_block(decoder) if part == decoder.links else encoder.encode_tokens([part])[0] for part in blocks])
        _, logits = recomputed(decoder, placed, [*question, *answer], placed[-1].end, 0.0, keep=len(answer) + 1)
        stitched += torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(answer), reduction="sum")
    trained = task.loss(decoder._model, task.batch(examples)).detach()
    assert abs(float(trained - stitched)) < 1e-9


def test_the_reader_puts_them_behind_each_passage(linked: Callable[..., Decoder]) -> None:
    decoder = linked("", 0)
    texts = ["the cat sat", "the dog ran to the cat"]
    reader = Reader(LocalEncoder.over(decoder), NoStore())
    prepared = reader.prepare(f"{PASSAGES}\nwho?", ["a", "b"], texts, 8)
    found = [block.encoded.tokens == decoder.links for block in prepared.blocks]
    assert found == [False, False, True, False, False, True]  # the beginning, a passage, links, a blank line, a passage, links
    plain = Reader(LocalEncoder.over(Decoder(model(""), decoder.tokenizer, "bare")), NoStore()).prepare(
        f"{PASSAGES}\nwho?", ["a", "b"], texts, 8
    )
    assert prepared.tokens == plain.tokens
    assert prepared.start == plain.start + 2 * COUNT
    generation = reader.answer(prepared, Writing(prepared.tokens, Sampling(6)))
    assert generation.prompt_tokens == len(plain.tokens)
    room = decoder.window - prepared.start - len(prepared.question)
    assert reader.prepare(f"{PASSAGES}\nwho?", ["a", "b"], texts, room).passages == 2
    assert reader.prepare(f"{PASSAGES}\nwho?", ["a", "b"], texts, room + 1).passages == 1


def test_ordinary_reading_has_no_place_for_them(linked: Callable[..., Decoder]) -> None:
    with pytest.raises(MissingCapability, match="answer with attention 'blocks'"):
        PrefixReader(LocalEncoder.over(linked())).prepare(f"{PASSAGES}\nwho?", ["a"], ["the cat sat"], 4)
