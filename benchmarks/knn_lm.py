"""kNN-LM on WikiText-2: what does a datastore of the domain take off the perplexity of a model that stays as it is?

    python -m benchmarks.knn_lm --data ../shared/data

Nine of ten articles of the validation part are read once into a datastore. λ, temperature and k are chosen on the tenth ones, which the
datastore has not seen. Then every fourth article of the test part is predicted by the model alone and by the mixture; the interval is a
bootstrap over articles. As a control the model is also mixed with the datastore's bare word counts, whose weight is chosen in the same way:
what these take off is the set's spelling (``<unk>``, `` @-@ ``) and topics, and needs no neighbours. Perplexity is per token of the model's
own tokenizer, each token predicted from 256 or more before it (fewer only where an article begins), and the first of an article not at all.

It is sized for 20 minutes on two cores. One thread of an AMD EPYC reads 217 tokens of SmolLM2 a second into the datastore and predicts
150, search included; twice that on two cores makes ten minutes for the 256,000 entries, one and a half for the 18,000 tokens to choose by
with all settings, and four to five for 71,000 of the test. ``--test-every 1`` predicts all 312,000, in a quarter of an hour more.
Every article and the datastore are kept in ``--runs``: a stopped benchmark goes on with the same command.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept import Kept, digest
from benchmarks.report import Row, parser, report
from generators.knn_lm import Datastore, Decoder, Interpolation, Reader, Windows
from generators.knn_lm.reading import Reading
from rag.core.errors import ConfigError, InputError

NAME = "knn_lm"
CASE = "wikitext2"
WEIGHTS = (0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
TEMPERATURES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""In units of the datastore's spread, so that they mean the same for every model."""
NEIGHBOURS = (32, 128, 512)
_HEADING = re.compile(r"^ = [^=].* = \n \n", re.MULTILINE)
"""A line " = Title = " with an empty one behind; formulae look like it but for that."""
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Sums:
    """Of one article: predicted tokens, and the sums of natural log-probabilities by the model and by mixtures.

    ``counted`` are those with bare word counts, one for each of `WEIGHTS`.
    """

    tokens: int
    base: float
    mixed: tuple[float, ...]
    counted: tuple[float, ...]

    @staticmethod
    def of(reading: Reading, settings: Sequence[Interpolation], shares: np.ndarray) -> Sums:
        """With each of ``settings``; ``shares`` is how often each token stands in the datastore, [vocabulary], and sums to 1."""
        mixed = tuple(float(reading.logprobs(each).sum()) for each in settings)
        with np.errstate(divide="ignore"):
            apart = np.log(shares[reading.targets])
        counted = tuple(float(np.logaddexp(np.log(weight) + apart, np.log1p(-weight) + reading.base).sum()) for weight in WEIGHTS)
        return Sums(len(reading.base), float(reading.base.sum()), mixed, counted)


def articles(data: Path, part: str) -> list[str]:
    """The articles of WikiText-2's "valid" or "test". Raises `InputError`."""
    file = data / "wikitext2" / f"{part}.txt"
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; --data takes the folder that holds wikitext2/")
    text = file.read_text("utf-8")
    starts = [found.start() for found in _HEADING.finditer(text)]
    if not starts:
        raise InputError(f"{file}: it has no line ' = Title = ', so it is not WikiText-2")
    return [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def apart(texts: Sequence[str], every: int) -> tuple[list[str], list[str]]:
    """Those for the datastore, and those to choose by: one of ``every`` so many. Raises `ConfigError` if there are none of either."""
    held_out = [text for at, text in enumerate(texts) if at % every == every - 1]
    store = [text for at, text in enumerate(texts) if at % every != every - 1]
    if not store or not held_out:
        raise ConfigError(
            f"{len(store)} articles for the datastore and {len(held_out)} to choose by: change --hold-out, or raise --store-articles"
        )
    return store, held_out


def grid(spread: float, most: int) -> list[Interpolation]:
    """All that is tried; ``most`` neighbours were looked up."""
    ks = [k for k in NEIGHBOURS if k <= most] or [most]
    return [Interpolation(weight, share * spread, k) for k in ks for share in TEMPERATURES for weight in WEIGHTS]


def best(settings: Sequence[Interpolation], found: Sequence[Sums]) -> Interpolation:
    """The setting under which the articles are the most likely."""
    totals = np.sum([sums.mixed for sums in found], axis=0)
    return settings[int(totals.argmax())]


def with_counts(choice: Sequence[Sums], found: Sequence[Sums]) -> list[Sums]:
    """``found`` with word counts in the place of neighbours, in the weight under which ``choice`` is the most likely."""
    at = int(np.sum([sums.counted for sums in choice], axis=0).argmax())
    return [Sums(sums.tokens, sums.base, (sums.counted[at],), sums.counted) for sums in found]


def reduction(found: Sequence[Sums]) -> float:
    """By how many percent the first mixture's perplexity lies below the model's."""
    tokens = sum(sums.tokens for sums in found)
    return 100 * (1 - math.exp(sum(sums.base - sums.mixed[0] for sums in found) / tokens))


def interval(found: Sequence[Sums], seed: int = 0) -> tuple[float, float]:
    """95% of `reduction` over articles drawn with replacement (percentile bootstrap)."""
    tokens = np.array([sums.tokens for sums in found])
    gains = np.array([sums.base - sums.mixed[0] for sums in found])
    drawn = np.random.default_rng(seed).integers(0, len(found), (_RESAMPLES, len(found)))
    values = 100 * (1 - np.exp(gains[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


class Measurement:
    """One model over one corpus; what it finds is kept in ``folder``."""

    def __init__(self, decoder: Decoder, store: Sequence[str], windows: Windows, folder: Path) -> None:
        self._decoder = decoder
        key = {"source": asdict(decoder.source), "texts": list(store), "windows": asdict(windows)}
        self._key = {"store": digest(key)}
        self._kept = Kept(folder)
        self._started = time.perf_counter()
        self.datastore = Datastore.build(folder / f"store-{digest(key)}", decoder, store, windows, batch=2, progress=self._told)
        self._reader = Reader(decoder, self.datastore, max(NEIGHBOURS), windows)
        counts = np.sum([np.bincount(decoder.ids(text), minlength=len(decoder.tokenizer)) for text in store], axis=0)
        self._shares = counts / counts.sum()

    def sums(self, what: str, text: str, settings: Sequence[Interpolation]) -> Sums:
        """Of the article ``text``, now or as it was found before."""
        key = {**self._key, "text": text, "settings": [asdict(each) for each in settings]}
        held: Mapping[str, Any] = self._kept.value(what, key, lambda: asdict(self._read(what, text, settings)))
        return Sums(int(held["tokens"]), float(held["base"]), tuple(map(float, held["mixed"])), tuple(map(float, held["counted"])))

    def _read(self, what: str, text: str, settings: Sequence[Interpolation]) -> Sums:
        start = time.perf_counter()
        found = Sums.of(self._reader.read(self._decoder.ids(text)), settings, self._shares)
        rate = found.tokens / (time.perf_counter() - start)
        print(f"{what}: {text.split('=', 2)[1].strip()[:40]}, {found.tokens:,} tokens, {rate:.0f} tokens/s", flush=True)
        return found

    def _told(self, entries: int, total: int) -> None:
        print(f"datastore: {entries:,} of {total:,} tokens, {time.perf_counter() - self._started:.0f} s", flush=True)


def rows(found: Sequence[Sums], chosen: Interpolation, choice: Sequence[Sums], at: int, entries: int) -> list[Row]:
    """All rows: ``found`` has the test's articles, ``choice`` those to choose by, where the chosen setting is number ``at``."""
    tokens = sum(sums.tokens for sums in found)
    base = math.exp(-sum(sums.base for sums in found) / tokens)
    mixed = math.exp(-sum(sums.mixed[0] for sums in found) / tokens)
    low, high = interval(found)
    picked = [Sums(sums.tokens, sums.base, (sums.mixed[at],), sums.counted) for sums in choice]
    return [
        Row(NAME, CASE, "ppl", mixed, "", "model alone", base),
        Row(NAME, CASE, "ppl_base", base),
        Row(NAME, CASE, "reduction", reduction(found), "%"),
        Row(NAME, CASE, "reduction_min", low, "%"),
        Row(NAME, CASE, "reduction_max", high, "%"),
        Row(NAME, CASE, "lambda", chosen.weight),
        Row(NAME, CASE, "temperature", chosen.temperature),
        Row(NAME, CASE, "k", chosen.k),
        Row(NAME, CASE, "tokens", tokens),
        Row(NAME, CASE, "articles", len(found)),
        Row(NAME, CASE, "entries", entries),
        Row(NAME, f"{CASE}, held out", "reduction", reduction(picked), "%"),
        Row(NAME, f"{CASE}, word counts", "reduction", reduction(with_counts(choice, found)), "%"),
    ]


def measure(given: argparse.Namespace) -> list[Row]:
    """All rows."""
    store, held_out = apart(articles(given.data, "valid")[: given.store_articles], given.hold_out)
    test = articles(given.data, "test")[:: given.test_every][: given.test_articles]
    decoder = Decoder.load(given.model, device=given.device)
    work = Measurement(decoder, store, Windows(given.window, given.stride), given.runs)
    print(f"{len(work.datastore):,} entries, {len(held_out)} articles to choose by, {len(test)} to test", flush=True)
    settings = grid(work.datastore.manifest.spread, min(max(NEIGHBOURS), len(work.datastore)))
    choice = [work.sums("choice", text, settings) for text in held_out]
    chosen = best(settings, choice)
    print(f"chosen: {chosen}", flush=True)
    found = [work.sums("test", text, [chosen]) for text in test]
    return rows(found, chosen, choice, settings.index(chosen), len(work.datastore))


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    known = parser(__doc__ or "")
    known.add_argument("--data", type=Path, required=True, help="folder with wikitext2/")
    known.add_argument("--runs", type=Path, default=Path(f"results/{NAME}"), help="folder that keeps the datastore and the results")
    known.add_argument("--model", default="smollm2", help="smollm2, a folder, or a Hugging Face id")
    known.add_argument("--device", default="auto", help="auto, cpu, cuda:0, …")
    known.add_argument("--window", type=int, default=1024, help="tokens that are read at once")
    known.add_argument("--stride", type=int, default=768, help="tokens from one window to the next")
    known.add_argument("--hold-out", type=int, default=10, help="of so many articles of the validation part, one is to choose by")
    known.add_argument("--store-articles", type=int, help="only so many articles of the validation part")
    known.add_argument("--test-every", type=int, default=4, help="every so many articles of the test part, one is predicted; 1: all")
    known.add_argument("--test-articles", type=int, help="only so many of these")
    result = known.parse_args(given)
    for name in ("hold_out", "store_articles", "test_every", "test_articles"):
        value = getattr(result, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: it is a whole number of at least 1")
    return result


def main() -> None:
    """Print the table."""
    given = options()
    report(measure(given), given, "torch", "transformers", "faiss-cpu")


if __name__ == "__main__":
    main()
