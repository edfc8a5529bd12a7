"""Decoding with a transformers model in process: one batch of prompts from prefill to the last row's end, and scoring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from generators.models.offsets import Detokenizer, StopStrings, align, cut_tokens
from generators.models.wardrobe import Wardrobe
from rag.core.errors import ModelError
from rag.core.types import Generation, Sampling, Token

if TYPE_CHECKING:
    import torch

_SCORED_POSITIONS = 4096
"""Positions whose logits are held at once while scoring; a vocabulary of 50,000 makes that 0.8 GB."""


class Writing:
    """One prompt being continued: a row of a batch, all of which wear the same ``adapter``.

    ``listener`` hears each piece of text; ``cancelled`` ends the row at its next token.
    """

    def __init__(
        self, ids: Sequence[int], sampling: Sampling, listener: Callable[[str], None] | None = None, adapter: str | None = None
    ) -> None:
        self.ids = list(ids)
        self.adapter = adapter
        self.sampling = sampling
        self.cancelled = False
        self.written = 0
        self._listener = listener

    def begin(self, decode: Callable[[list[int]], str], spell: Callable[[int], str], device: torch.device) -> None:
        """Make ready for the first token."""
        import torch

        self.text = ""
        self.finish: Literal["stop", "length"] | None = None
        self._tokens: list[Token] = []
        self._seen: Counter[int] = Counter()
        self._told = 0
        self._spell = spell
        self._detokenizer = Detokenizer(decode, self.ids[-6:])
        self._stops = StopStrings(self.sampling.stop)
        self._random = torch.Generator(device=device)
        if self.sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(self.sampling.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """Pick the next token from ``logits`` [vocabulary] by this row's own sampling."""
        import torch

        presence, frequency = self.sampling.presence_penalty, self.sampling.frequency_penalty
        if self.sampling.logit_bias or presence or frequency:
            logits = logits.clone()
            for token, bias in self.sampling.logit_bias.items():
                logits[token] += bias
            for token, times in self._seen.items():  # of what was written, not of the prompt, as OpenAI and vLLM define them
                logits[token] -= presence + frequency * times
        if self.sampling.temperature < 1e-5:
            return int(logits.argmax())
        probabilities = torch.softmax(logits / self.sampling.temperature, dim=-1)
        if self.sampling.top_p < 1:
            ranked, order = probabilities.sort(descending=True)
            # the smallest set that reaches top_p; the most likely token always belongs (Holtzman et al. 2020, section 3.1)
            outside = ranked.cumsum(-1) - ranked >= self.sampling.top_p
            probabilities[order[outside]] = 0.0
        return int(torch.multinomial(probabilities, 1, generator=self._random))

    def take(self, token: int, logits: torch.Tensor, end_tokens: frozenset[int]) -> bool:
        """Append ``token``; return whether the row goes on."""
        self.written += 1
        self._seen[token] += 1
        start = len(self.text)
        ends = token in end_tokens
        piece = "" if ends else self._detokenizer.add(token)
        self.text += piece
        if self.sampling.logprobs is not None or self.sampling.logprob_ids:
            logprob, top = self._measure(token, logits, self.sampling.logprobs or 0)
            self._tokens.append(Token(piece, token, logprob, start, len(self.text), top))
        if ends:
            self.finish = "stop"
        elif piece and (cut := self._stops.find(self.text, len(piece))) is not None:
            self.text = self.text[:cut]
            self._tokens = list(cut_tokens(self._tokens, cut))
            self.finish = "stop"
        elif piece and self.sampling.until is not None and self.sampling.until(self.text):
            self.finish = "stop"
        elif self.written >= self.sampling.max_tokens:
            self.finish = "length"
        self._tell()
        return self.finish is None and not self.cancelled

    def generation(self, model: str) -> Generation:
        """What was written."""
        return Generation(self.text, tuple(self._tokens), self.finish or "length", len(self.ids), self.written, model)

    def _measure(self, token: int, logits: torch.Tensor, n: int) -> tuple[float, tuple[tuple[int, str, float], ...]]:
        logprobs = logits.log_softmax(-1)
        if self.sampling.logprob_ids:
            wanted = list(self.sampling.logprob_ids)
            pairs = sorted(zip(wanted, logprobs[wanted].tolist(), strict=True), key=lambda pair: -pair[1])
        elif n == 0:
            return float(logprobs[token]), ()
        else:
            values, ids = logprobs.topk(min(n, logprobs.shape[-1]))
            pairs = list(zip(ids.tolist(), values.tolist(), strict=True))
        return float(logprobs[token]), tuple((i, self._spell(i), value) for i, value in pairs)

    def _tell(self) -> None:
        if self._listener is None:
            return
        until = len(self.text) if self.finish else self._stops.safe(self.text)
        if until > self._told:
            self._listener(self.text[self._told : until])
            self._told = until


class Reading:
    """One continuation to be scored after its prompt: a row of a batch, all of which wear the same ``adapter``."""

    def __init__(self, before: Sequence[int], after: Sequence[int], continuation: str, adapter: str | None = None) -> None:
        self.adapter = adapter
        self.before = list(before)
        self.after = list(after)
        self.continuation = continuation


class Engine:
    """A causal language model with its tokenizer; ``name`` goes into what it returns. Not thread-safe: one worker calls it."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self._wardrobe = Wardrobe(model)
        self._model = model
        self._device = model.device
        self._tokenizer = tokenizer
        self._name = name
        self._spellings: dict[int, str] = {}
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        ends = model.generation_config.eos_token_id if model.generation_config.eos_token_id is not None else tokenizer.eos_token_id
        self._ends: frozenset[int] = frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def work(self, jobs: Sequence[Writing | Reading]) -> list[Generation]:
        """Do a batch of jobs of one kind and one adapter. Raises `ModelError` when memory does not suffice, and `Wardrobe`'s errors."""
        import torch

        self._model = self._wardrobe.wearing(jobs[0].adapter)
        try:
            with torch.inference_mode():
                writings = [job for job in jobs if isinstance(job, Writing)]
                return self.write(writings) if writings else self.read([job for job in jobs if isinstance(job, Reading)])
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self._name}: {len(jobs)} prompts at once do not fit into the memory of {self._device}; lower max_batch"
            ) from error

    def write(self, rows: list[Writing]) -> list[Generation]:
        """Continue each prompt. A finished row leaves the batch at once."""
        import torch
        from transformers import DynamicCache

        device = self._device
        for row in rows:
            row.begin(self._decode, self._spell, device)
        ids, mask = self._padded([row.ids for row in rows])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._model.config)
        active = rows
        while True:
            output = self._model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            logits = output.logits[:, -1].float()
            chosen = [row.choose(logits[i]) for i, row in enumerate(active)]
            keep = [i for i, (row, token) in enumerate(zip(active, chosen, strict=True)) if row.take(token, logits[i], self._ends)]
            if not keep:
                return [row.generation(row.adapter or self._name) for row in rows]
            if len(keep) < len(active):
                kept = torch.tensor(keep, device=device)
                cache.batch_select_indices(kept)
                mask, positions = mask[kept], positions[kept]
                active = [active[i] for i in keep]
            ids = torch.tensor([[chosen[i]] for i in keep], device=device)
            mask = torch.cat([mask, mask.new_ones(len(keep), 1)], dim=-1)
            positions = positions[:, -1:] + 1

    def read(self, rows: list[Reading]) -> list[Generation]:
        """Score each continuation: log p(token | prompt and the tokens before it)."""
        results: list[Generation] = []
        while len(results) < len(rows):
            part = rows[len(results) : len(results) + 1]
            longest = len(part[0].after)
            for row in rows[len(results) + 1 :]:
                if (max(longest, len(row.after)) + 1) * (len(part) + 1) > _SCORED_POSITIONS:
                    break
                longest = max(longest, len(row.after))
                part.append(row)
            results += self._read_part(part, longest + 1)
        return results

    def _read_part(self, rows: list[Reading], positions: int) -> list[Generation]:
        import torch

        ids, mask = self._padded([row.before + row.after for row in rows])
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False, logits_to_keep=positions).logits
        results = []
        for row, predicted in zip(rows, logits, strict=True):
            wanted = torch.tensor(row.after, device=predicted.device)
            relevant = predicted[-len(row.after) - 1 : -1].float()
            logprobs = (relevant.gather(-1, wanted[:, None])[:, 0] - relevant.logsumexp(-1)).tolist()
            detokenizer = Detokenizer(self._decode_all, row.before[-6:])
            spans = align([detokenizer.add(token) for token in row.after], row.continuation)
            tokens = tuple(
                Token(row.continuation[start:end], token, logprob, start, end)
                for token, logprob, (start, end) in zip(row.after, logprobs, spans, strict=True)
            )
            results.append(Generation(row.continuation, tokens, "stop", len(row.before), len(row.after), row.adapter or self._name))
        return results

    def _padded(self, sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded ids and their mask, both [rows, longest], so that every row's next token comes from the last column."""
        import torch

        longest = max(map(len, sequences))
        ids = [[self._pad] * (longest - len(sequence)) + sequence for sequence in sequences]
        mask = [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _decode_all(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def _spell(self, token: int) -> str:
        if token not in self._spellings:
            self._spellings[token] = self._decode_all([token])
        return self._spellings[token]
