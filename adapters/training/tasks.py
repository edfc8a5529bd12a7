"""What is learnt: how records become tokens, tokens a padded batch, and a batch a loss. One class for each kind of model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from adapters.training.data import Answered, Grounded, Labelled, Record, Related
from adapters.training.losses import IGNORED, aligned_loss, causal_loss, classification_loss, contrastive_loss, mean_pool
from rag.core.errors import InputError

_LEAST_TOKENS = 8
_FORM: dict[type, str] = {
    Answered: "prompts and answers",
    Labelled: "texts and labels",
    Related: "questions and passages",
    Grounded: "passages, questions and answers",
}


@dataclass(frozen=True)
class Example:
    """Token ids of one example: ``parts`` are prompt and answer, or the text, or question, positive and negatives."""

    parts: tuple[tuple[int, ...], ...]
    label: int = 0
    types: tuple[int, ...] = ()
    """Which of two texts each token belongs to, where the model asks."""

    @property
    def length(self) -> int:
        """Tokens, all parts together."""
        return sum(map(len, self.parts))


@dataclass(frozen=True)
class Encoded:
    """Examples, and what had to be cut to fit: the number of examples by the part that lost tokens."""

    examples: list[Example]
    cut: Mapping[str, int]


@dataclass(frozen=True)
class Batch:
    """Padded tensors: the inputs of each forward pass, and what the loss compares with."""

    inputs: tuple[dict[str, Tensor], ...]
    targets: Tensor
    weight: int
    """What the loss is summed over: scored tokens, or rows."""
    tokens: int
    """Input tokens without padding."""

    def to(self, device: torch.device) -> Batch:
        """On ``device``."""
        moved = tuple({name: tensor.to(device) for name, tensor in one.items()} for one in self.inputs)
        return Batch(moved, self.targets.to(device), self.weight, self.tokens)


class Task(Protocol):
    """One kind of training."""

    least: int
    """Rows that a batch needs."""

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Records as tokens. Raises `InputError` for records of another kind."""
        ...

    def batch(self, examples: Sequence[Example]) -> Batch:
        """``examples`` padded to the longest of them."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The negative log-likelihood of ``batch``, summed over its ``weight``."""
        ...


class CausalTask:
    """A language model learns to write the answer and then to end: only these tokens are scored.

    Prompt and answer are tokenised apart and joined, as at inference; a space between them is the caller's. A prompt too long loses its
    beginning; an answer that alone is too long loses its end, and where to end is then not learnt from it.
    """

    least = 1

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        check_room(max_tokens)
        self._prompts = PromptTokens(tokenizer)
        self._max = max_tokens
        self._pad = padding_token(tokenizer)

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Records of `Answered`."""
        return encoded_as(records, Answered, self._one)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Prompt and answer in one row, padded at the end."""
        rows = [[*prompt, *answer] for prompt, answer in (example.parts for example in examples)]
        labels = [[IGNORED] * len(prompt) + list(answer) for prompt, answer in (example.parts for example in examples)]
        weight = sum(len(example.parts[1]) for example in examples)
        return Batch((_padded(rows, self._pad),), rectangle(labels, IGNORED), weight, sum(map(len, rows)))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Over answer tokens."""
        return causal_loss(model(**batch.inputs[0]).logits, batch.targets)

    def _one(self, record: Answered, cut: Counter[str]) -> Example:
        prompt, answer = self._prompts.encode(record)
        if len(answer) > self._max - 1:
            cut["answer"] += 1
            answer = answer[: self._max - 1]
        room = self._max - len(answer)
        if len(prompt) > room:
            cut["prompt"] += 1
            prompt = prompt[-room:]
        return Example((tuple(prompt), tuple(answer)))


class Seq2SeqTask:
    """An encoder reads the prompt, its decoder learns to write the answer and then to end. Each is cut at its own end if it is too long."""

    least = 1

    def __init__(self, tokenizer: Any, max_tokens: int) -> None:
        check_room(max_tokens)
        self._prompts = PromptTokens(tokenizer)
        self._max = max_tokens
        self._pad = padding_token(tokenizer)

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Records of `Answered`."""
        return encoded_as(records, Answered, self._one)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Prompts padded at the end; answers are the targets."""
        prompts, answers = [list(example.parts[0]) for example in examples], [list(example.parts[1]) for example in examples]
        weight = sum(map(len, answers))
        return Batch((_padded(prompts, self._pad),), rectangle(answers, IGNORED), weight, weight + sum(map(len, prompts)))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Over answer tokens."""
        return aligned_loss(model(**batch.inputs[0], labels=batch.targets).logits, batch.targets)

    def _one(self, record: Answered, cut: Counter[str]) -> Example:
        prompt, answer = self._prompts.encode(record)
        cut.update(name for name, tokens in (("prompt", prompt), ("answer", answer)) if len(tokens) > self._max)
        return Example((tuple(prompt[: self._max]), tuple(answer[: self._max])))


class ClassificationTask:
    """A classifier learns the label of a text, or of two. ``labels`` are the classes in the order of the model's outputs."""

    least = 1

    def __init__(self, tokenizer: Any, max_tokens: int, labels: Sequence[str]) -> None:
        check_room(max_tokens)
        if len(set(labels)) < 2:
            raise InputError(f"a classifier needs two labels or more; the data has: {', '.join(labels) or 'none'}")
        self._tokenizer = tokenizer
        self._max = max_tokens
        self._labels = {label: number for number, label in enumerate(labels)}
        self._pad = padding_token(tokenizer)

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Records of `Labelled`. Raises `InputError` for a label that is not among the classes."""
        return encoded_as(records, Labelled, self._one)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Texts padded at the end."""
        rows = [list(example.parts[0]) for example in examples]
        inputs = _padded(rows, self._pad)
        if examples[0].types:
            inputs["token_type_ids"] = rectangle([list(example.types) for example in examples], 0)
        return Batch((inputs,), torch.tensor([example.label for example in examples]), len(rows), sum(map(len, rows)))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Over rows."""
        return classification_loss(model(**batch.inputs[0]).logits, batch.targets)

    def _one(self, record: Labelled, cut: Counter[str]) -> Example:
        if record.label not in self._labels:
            raise InputError(f"the label '{record.label}' is none of the classes that are trained: {', '.join(self._labels)}")
        texts = (record.text,) if record.text_pair is None else (record.text, record.text_pair)
        tokens = self._tokenizer(*texts, verbose=False)
        if len(tokens["input_ids"]) > self._max:
            cut["text"] += 1
            tokens = self._tokenizer(*texts, truncation=True, max_length=self._max, verbose=False)
        return Example((tuple(tokens["input_ids"]),), self._labels[record.label], tuple(tokens.get("token_type_ids", ())))


class ContrastiveTask:
    """An encoder learns to put a question nearer to its passage than to all others of the batch, the hard negatives among them.

    Texts are mean-pooled and normalised (Reimers & Gurevych 2019). A passage with the same tokens as the positive is never a negative.
    """

    least = 2

    def __init__(self, tokenizer: Any, max_tokens: int, scale: float = 20.0) -> None:
        check_room(max_tokens)
        self._tokenizer = tokenizer
        self._max = max_tokens
        self._scale = scale
        self._pad = padding_token(tokenizer)

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Records of `Related`."""
        return encoded_as(records, Related, self._one)

    def batch(self, examples: Sequence[Example]) -> Batch:
        """Questions, and all passages: positives first, in the order of the questions."""
        questions = [list(example.parts[0]) for example in examples]
        positives = [example.parts[1] for example in examples]
        passages = [*positives, *(negative for example in examples for negative in example.parts[2:])]
        compared = torch.tensor([[at == i or passages[at] != own for at in range(len(passages))] for i, own in enumerate(positives)])
        inputs = (_padded(questions, self._pad), _padded([list(passage) for passage in passages], self._pad))
        return Batch(inputs, compared, len(questions), sum(example.length for example in examples))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Over questions."""
        questions, passages = (mean_pool(model(**one).last_hidden_state, one["attention_mask"]) for one in batch.inputs)
        return contrastive_loss(questions, passages, batch.targets, self._scale)

    def _one(self, record: Related, cut: Counter[str]) -> Example:
        def tokens(name: str, text: str) -> tuple[int, ...]:
            ids = self._tokenizer(text, verbose=False)["input_ids"]
            if len(ids) > self._max:
                cut[name] += 1
                ids = self._tokenizer(text, truncation=True, max_length=self._max, verbose=False)["input_ids"]
            return tuple(ids)

        negatives = (tokens("negative", text) for text in record.negatives)
        return Example((tokens("question", record.question), tokens("positive", record.positive), *negatives))


class PromptTokens:
    """Prompt and answer as tokens, the answer with the end that the model is to learn."""

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no end-of-text token (eos_token): a model could not learn where its answer ends")
        self._tokenizer = tokenizer
        self._chat_end: int | None = None

    def encode(self, record: Answered) -> tuple[list[int], list[int]]:
        """(prompt, answer and end). Raises `InputError` if the prompt is a chat and the tokenizer has no template."""
        if isinstance(record.prompt, str):
            return list(self._tokenizer(record.prompt, verbose=False)["input_ids"]), self.answer(record.answer, chat=False)
        if not self._tokenizer.chat_template:
            raise InputError("the prompt is a chat, and the model's tokenizer has no chat template; give prompts as text")
        prompt = self._template(list(record.prompt), add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
        return list(prompt), self.answer(record.answer, chat=True)

    def answer(self, text: str, chat: bool) -> list[int]:
        """Tokens of an answer with its end: that of a turn in a ``chat``, else that of the text."""
        return [*self._plain(text), self._end_of_turn() if chat else self._tokenizer.eos_token_id]

    def _end_of_turn(self) -> int:
        """What the template puts behind an answer: not always the end-of-text token (LLaMA 3 has another)."""
        if self._chat_end is None:
            mark = "ANSWER"
            turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": mark}]
            behind = self._plain(self._template(turns, tokenize=False).rpartition(mark)[2].lstrip())
            special = bool(behind) and behind[0] in self._tokenizer.all_special_ids
            self._chat_end = behind[0] if special else self._tokenizer.eos_token_id
        return int(self._chat_end)

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []

    def _template(self, turns: list[dict[str, str]], **how: Any) -> Any:
        render: Callable[..., Any] = self._tokenizer.apply_chat_template
        return render(turns, **how)


def encoded_as(records: Sequence[Record], kind: type, one: Callable[[Any, Counter[str]], Example]) -> Encoded:
    """All ``records`` by ``one``, which counts what it cuts. Raises `InputError` for a record that is not of ``kind``."""
    cut: Counter[str] = Counter()
    return Encoded([one(_expected(record, kind), cut) for record in records], cut)


def _expected(record: Record, kind: type) -> Any:
    if not isinstance(record, kind):
        raise InputError(f"the data holds {_FORM[type(record)]}, and this model learns from {_FORM[kind]}")
    return record


def check_room(max_tokens: int) -> None:
    """Raise `InputError` unless ``max_tokens`` is a number of tokens that something can be learnt from."""
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < _LEAST_TOKENS:
        raise InputError(f"training: max_tokens is a whole number from {_LEAST_TOKENS}, not {max_tokens!r}")


def padding_token(tokenizer: Any) -> int:
    """Any token will do: the attention mask hides it, and no label is at its place."""
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(found or 0)


def _padded(rows: Sequence[list[int]], pad: int) -> dict[str, Tensor]:
    mask = rectangle([[1] * len(row) for row in rows], 0)
    return {"input_ids": rectangle(rows, pad), "attention_mask": mask}


def rectangle(rows: Sequence[list[int]], fill: int) -> Tensor:
    """``rows`` as one tensor, filled up at their ends."""
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows])
