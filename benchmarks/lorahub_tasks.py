"""What `benchmarks.lorahub` composes and asks: tasks of BBH, LoRAs trained on them, answers that are scored, results that are kept."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters import LoRA, adapt
from adapters.adapted import Adapted
from adapters.folder import CARD, read_card
from adapters.registry import Registry
from adapters.training.card import run_card
from adapters.training.data import Answered, DataFile
from adapters.training.journal import Event
from adapters.training.losses import IGNORED
from adapters.training.options import Options
from adapters.training.tasks import CausalTask, PromptTokens
from adapters.training.trainer import train
from benchmarks.files import write_whole
from benchmarks.kept import Kept
from rag.core.errors import InputError

MAX_TOKENS = 512
FEW, FEW_SEED = 5, 42
"""Examples of an unseen task, the first of those shuffled with this seed (released code, ``reproduce_bbh.py``)."""
_SLACK = 2
"""Tokens that an answer may be longer than the longest right one and still be read to its end."""


def read_bbh(data: Path, name: str) -> DataFile:
    """A task of BIG-Bench Hard (Suzgun et al. 2023) without demonstrations: "Q: …", a line that begins "A:", and " answer".

    Raises `InputError` if it is not there.
    """
    file = data / "bbh" / "bbh" / f"{name}.json"
    if not file.is_file():
        known = ", ".join(sorted(found.stem for found in file.parent.glob("*.json"))) or "none: --data takes the folder that holds bbh/bbh/"
        raise InputError(f"{file}: there is no such task; there are: {known}")
    content = file.read_bytes()
    records = [Answered(f"Q: {one['input']}\nA:", f" {one['target']}") for one in json.loads(content)["examples"]]
    return DataFile(file, records, hashlib.sha256(content).hexdigest(), len(content))


def shuffled(records: Sequence[Any], seed: int) -> list[Answered]:
    """``records`` as ``random.seed(seed); random.shuffle(…)`` orders them: the released code takes its five examples so, with seed 42."""
    order = list(records)
    random.Random(seed).shuffle(order)
    return order


@dataclass(frozen=True)
class Unseen:
    """A task that no LoRA learnt: its five examples, and the questions that are asked."""

    task: DataFile
    few: list[Answered]
    rest: list[Answered]

    @classmethod
    def of(cls, task: DataFile, limit: int | None) -> Unseen:
        """``task``, cut; of the rest at most ``limit`` are asked."""
        order = shuffled(task.records, FEW_SEED)
        return cls(task, order[:FEW], order[FEW:][:limit])

    def write(self, file: Path) -> None:
        """The examples as ``rag compose`` reads them."""
        write_whole(file, "".join(json.dumps({"prompt": one.prompt, "answer": one.answer}) + "\n" for one in self.few))


@dataclass(frozen=True)
class Score:
    """One number for each question."""

    em: list[float]
    """1 where the whole answer is right, up to its end: after strip, lower case and without "." (the released code's match)."""
    line: list[float]
    """1 where its first line is."""
    loss: list[float]
    """Mean -log p of the right answer's tokens and its end, nats."""


class Scorer:
    """Asks a model, greedily, ``batch`` questions at a time; prompts are read once, for the answer and for the loss.

    An answer that has not ended `_SLACK` tokens after the longest right one would have is wrong; the released code reads 256 tokens of it,
    to the same effect.
    """

    def __init__(self, tokenizer: Any, batch: int = 32) -> None:
        self._tokenizer = tokenizer
        self._tokens = PromptTokens(tokenizer)
        self._batch = batch

    def score(self, model: Any, examples: Sequence[Answered]) -> Score:
        """Of ``examples``, in their order."""
        rows = [self._tokens.encode(example) for example in examples]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
        room = max(len(answer) for _, answer in rows) + _SLACK
        found: dict[int, tuple[float, float, float]] = {}
        for start in range(0, len(order), self._batch):
            places = order[start : start + self._batch]
            written, losses = self.answered(model, [rows[place] for place in places], room)
            for place, answer, loss in zip(places, written, losses, strict=True):
                found[place] = (*self._judged(answer, examples[place].answer), loss)
        columns = [list(column) for column in zip(*(found[index] for index in range(len(rows))), strict=True)]
        return Score(*columns)

    def answered(self, model: Any, rows: Sequence[tuple[list[int], list[int]]], room: int) -> tuple[list[list[int]], list[float]]:
        """Of each (prompt, right answer and end) at most ``room`` tokens that the model writes, up to its end, and the loss."""
        ids, mask = _left([prompt for prompt, _ in rows])
        with torch.no_grad():
            places = (mask.cumsum(1) - 1).clamp(min=0)
            read = model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True, logits_to_keep=1)
            reading = _Reading(model, read.past_key_values, mask)
            written = reading.greedy(read.logits, room, self._tokenizer.eos_token_id)
            losses = reading.losses(read.logits, [answer for _, answer in rows])
        return written, losses

    def _judged(self, written: list[int], right: str) -> tuple[float, float]:
        """Whether the whole is right, and whether its first line is."""
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        ended = written[-1] == self._tokenizer.eos_token_id
        return float(ended and plain(text) == plain(right)), float(plain(first_line(text)) == plain(right))


class _Reading:
    """Prompts that a model has read: ``mask`` [rows, length], padded in front, and what it remembers of them."""

    def __init__(self, model: Any, cache: Any, mask: Tensor) -> None:
        self._model = model
        self._cache = cache
        self._mask = mask

    def greedy(self, first: Tensor, room: int, end: int) -> list[list[int]]:
        """The likeliest tokens one by one, up to ``end``; ``first`` [rows, 1, V] are the logits behind the prompts."""
        written = first[:, -1].argmax(-1, keepdim=True)
        while written.shape[1] < room and not (written == end).any(1).all():
            written = torch.cat([written, self._next(written[:, -1:], written.shape[1])[:, -1].argmax(-1, keepdim=True)], 1)
        self._forget()
        rows: list[list[int]] = written.tolist()
        return [row[: row.index(end) + 1] if end in row else row for row in rows]

    def losses(self, first: Tensor, answers: Sequence[list[int]]) -> list[float]:
        """Of each answer the mean -log p of its tokens."""
        longest = max(map(len, answers))
        right = torch.tensor([answer + [IGNORED] * (longest - len(answer)) for answer in answers])
        logits = torch.cat([first, self._next(right[:, :-1].clamp(min=0), longest - 1)], 1) if longest > 1 else first
        self._forget()
        each = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), right, ignore_index=IGNORED, reduction="none")
        means: list[float] = (each.sum(1) / (right != IGNORED).sum(1)).tolist()
        return means

    def _forget(self) -> None:
        """All behind the prompts."""
        behind = self._cache.get_seq_length() - self._mask.shape[1]
        if behind:
            self._cache.crop(-behind)

    def _next(self, ids: Tensor, behind: int) -> Tensor:
        """Logits behind ``ids`` [rows, n], which end ``behind`` tokens after the prompts. Padding at the end is seen by itself alone."""
        mask = torch.cat([self._mask, self._mask.new_ones(len(ids), behind)], 1)
        places = (mask.cumsum(1) - 1)[:, -ids.shape[1] :]
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        logits: Tensor = self._model(**given, past_key_values=self._cache, use_cache=True).logits
        return logits


def _left(rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask [rows, length], padded in front."""
    longest = max(map(len, rows))
    ids, mask = [[0] * (longest - len(row)) + row for row in rows], [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


def plain(text: str) -> str:
    """The released code's normal form: strip, lower case, no "."."""
    return text.strip().lower().replace(".", "").strip()


def first_line(text: str) -> str:
    """The first line that is not empty."""
    return text.strip().partition("\n")[0]


@dataclass(frozen=True)
class Recipe:
    """How the LoRAs are trained: one r, alpha and targets for all, and one seed, so that all start from the same A."""

    lora: LoRA
    options: Options
    held_out: int
    """Questions of each task that are kept out of training."""
    base: str
    """Fingerprint of the base model."""

    def settings(self) -> dict[str, Any]:
        """All that a result depends on, JSON-ready."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


class Workshop:
    """Trains a LoRA for a task, and keeps it in ``folder``: in ``trained/``, and in the registry ``registry/``."""

    def __init__(self, folder: Path, recipe: Recipe, model: Any, tokenizer: Any, scorer: Scorer, kept: Kept) -> None:
        self.registry = Registry(folder / "registry")
        self._folder = folder
        self._recipe = recipe
        self._model = model
        self._tokenizer = tokenizer
        self._scorer = scorer
        self._kept = kept

    def lora(self, task: DataFile) -> Path:
        """The folder of the task's LoRA, trained now if it is not there yet; a run that was stopped goes on."""
        name = task.path.stem
        folder = self._folder / "trained" / name
        if not ((folder / CARD).is_file() and read_card(folder)["data"]["sha256"] == task.sha256):
            self._train(task, folder)
        if name not in {entry.name for entry in self.registry.entries()}:
            self.registry.add(folder, name)
        return self.registry.path(name)

    def own_scores(self, task: DataFile, worn: Callable[[], Adapted]) -> tuple[Score, Score]:
        """On the task's own held-out questions: the base model's, and that of the LoRA that ``worn`` puts on."""
        name, questions = task.path.stem, self._split(task)[1]
        settings = {"recipe": self._recipe.settings(), "task": task.sha256}
        base = self._kept.value(f"own-{name}-base", settings, lambda: asdict(self._scorer.score(self._model, questions)))
        lora = self._kept.value(f"own-{name}-lora", settings, lambda: asdict(scored(worn(), self._scorer, questions)))
        return Score(**base), Score(**lora)

    def _train(self, task: DataFile, folder: Path) -> None:
        from accelerate.utils import set_seed  # type: ignore[import-untyped]

        name, options, working = task.path.stem, self._recipe.options, self._folder / "training" / task.path.stem
        set_seed(options.seed)
        learnt = replace(task, records=self._split(task)[0])
        language = CausalTask(self._tokenizer, MAX_TOKENS)
        encoded = language.encode(learnt.records)
        adapted = adapt(self._model, self._recipe.lora, head=())
        try:
            about = {"data": task.sha256, "recipe": self._recipe.settings()}
            outcome = train(adapted, language, encoded.examples, options, (), working, working.exists(), about, _told(name))
            card = run_card(learnt, None, MAX_TOKENS, options, outcome, encoded.cut)
            adapted.save(folder, {**card, "task": f"BBH {name.replace('_', ' ')}", "held_out_questions": self._recipe.held_out})
        finally:
            adapted.remove()
        shutil.rmtree(working, ignore_errors=True)
        self.registry.add(folder, name, replace=True)

    def _split(self, task: DataFile) -> tuple[list[Answered], list[Answered]]:
        """What is learnt, and what is kept out."""
        order = shuffled(task.records, self._recipe.options.seed)
        if len(order) <= self._recipe.held_out:
            raise InputError(f"{task.path.name} has {len(order)} questions, of which {self._recipe.held_out} are kept out: none are left")
        return order[self._recipe.held_out :], order[: self._recipe.held_out]


def scored(adapted: Adapted, scorer: Scorer, questions: Sequence[Answered]) -> Score:
    """The score of a model that wears a LoRA, which is taken off again."""
    try:
        return scorer.score(adapted.model, questions)
    finally:
        adapted.remove()


def _told(name: str) -> Callable[[Event], None]:
    started = time.monotonic()

    def tell(event: Event) -> None:
        if event.step % 8 == 0 or event.step == event.total:
            print(f"{name}: step {event.step} of {event.total}, loss {event.loss:.3f}, {time.monotonic() - started:.0f} s", flush=True)

    return tell
