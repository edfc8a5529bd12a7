from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest
import torch

from adapters import adapt
from adapters.methods import names
from adapters.training.options import Options
from adapters.training.tasks import ClassificationTask, Example
from benchmarks.adapter_baselines import FullFineTuning, HeadOnly
from benchmarks.adapter_cases import CASES, Case
from benchmarks.adapter_trial import Trial
from benchmarks.adapters import FLOOR, Found, Quality, options, rows, told
from benchmarks.claims import ClaimPairs, Evidence, claim_pairs, divided, sentences
from benchmarks.kept import Kept
from rag.core.errors import AdapterError, ConfigError, InputError
from tests.adapters.tiny import tiny

DATA = Path(__file__).parents[2] / "../shared/data"


class Words:
    """A tokenizer: a word is a number."""

    pad_token_id = 0
    eos_token_id = None

    def __call__(self, text: str, pair: str, **how: Any) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in f"1 {text} 2 {pair} 2".split()]}


def trial() -> Trial:
    task = ClassificationTask(Words(), 32, ("a", "b", "c"))
    examples = [Example(((1, 10 + number, 2, 20 + number % 3, 2),), number % 3) for number in range(12)]
    return Trial(lambda: tiny("bert"), task, examples, examples[:6], examples[3:])


def short(lr: float = 1e-3, steps: int = 3) -> Options:
    return Options(lr=lr, steps=steps, batch=4, keep="last")


def found(lr: float, right: str, **more: Any) -> Found:
    return Found(lr, {"right": right, "share": 0.25, "exports": [], "residual": None, **more})


ABSTRACTS = {name: [f"{name} {place}" for place in range(6)] for name in ascii_letters}
RESULTS = {
    "frozen": found(1e-2, "0" * 40 + "1" * 60),
    "lora": found(1e-3, "1" * 90 + "0" * 10, exports=["lora", "merged"], residual=0.0),
    "bitfit": found(3e-3, "1" * 50 + "0" * 50, exports=["merged"]),
}


class TestClaims:
    def made(self) -> ClaimPairs:
        train = [Evidence(f"claim {name}", name, frozenset({1, 3})) for name in ("a", *"cdefghijkl")]
        return divided(
            train, [Evidence("claim b", "b", frozenset({0, 1, 9})), Evidence("not a", "a", frozenset({1, 2}))], ABSTRACTS, seed=0
        )

    def test_no_abstract_is_in_two_parts(self) -> None:
        made = self.made()
        seen = [{(pair.text_pair or "")[0] for pair in part} for part in (made.train, made.development, made.test)]
        assert seen[2] == {"a", "b"}
        assert set.union(*seen) == set("abcdefghijkl")
        assert sum(map(len, seen)) == 12

    @pytest.mark.parametrize("seed", range(5))
    def test_no_claim_is_in_two_parts(self, seed: int) -> None:
        train = [Evidence(f"claim {number // 2}", name, frozenset({2})) for number, name in enumerate(ascii_letters[2:])]
        made = divided(train, [Evidence(f"claim {name}", name, frozenset({2})) for name in "ab"], ABSTRACTS, seed)
        seen = [{pair.text for pair in part} for part in (made.train, made.development, made.test)]
        assert sum(map(len, seen)) == len(set.union(*seen))
        assert all(seen)

    def test_claims_and_sentences_are_equally_often_under_both_labels(self) -> None:
        made = self.made()
        for part in (made.train, made.development, made.test):
            evidence, other = ([pair for pair in part if pair.label == label] for label in ("evidence", "other"))
            assert sorted(pair.text for pair in evidence) == sorted(pair.text for pair in other)
            assert sorted(pair.text_pair or "" for pair in evidence) == sorted(pair.text_pair or "" for pair in other)

    def test_evidence_is_what_was_annotated_and_others_are_of_another_abstract(self) -> None:
        made = self.made()
        for pair in [*made.train, *made.development]:
            name, place = (pair.text_pair or "").split()
            assert place in ("1", "3")
            assert (name == pair.text[-1]) == (pair.label == "evidence")

    def test_a_claim_with_two_abstracts_gets_a_sentence_of_neither(self) -> None:
        test = [Evidence("one claim", name, frozenset({0})) for name in "ab"]
        test += [Evidence(f"claim {name}", name, frozenset({0})) for name in "cd"]
        for seed in range(10):  # the order of the abstracts is drawn
            part = divided([Evidence(f"claim {name}", name, frozenset({0})) for name in "efghijklmnopqrst"], test, ABSTRACTS, seed).test
            others = {pair.text_pair for pair in part if pair.text == "one claim" and pair.label == "other"}
            assert others == {"c 0", "d 0"}

    def test_too_few_abstracts(self) -> None:
        with pytest.raises(InputError, match="too few"):
            divided([Evidence("claim a", "a", frozenset({0, 1}))], [], ABSTRACTS, seed=0)

    def test_a_place_that_the_abstract_does_not_have_is_left_out(self) -> None:
        assert {pair.text_pair for pair in self.made().test} == {"b 0", "b 1", "a 1", "a 2"}

    def test_a_seed_gives_the_same_pairs(self) -> None:
        assert self.made() == self.made()
        assert self.made().sha256 == self.made().sha256
        assert self.made().limited(2).sha256 != self.made().sha256

    def test_sentences_of_a_printed_array(self) -> None:
        assert sentences("""['It was 5 +/-' "one's own."\n 'It\\'s over.   \\n']""") == ["It was 5 +/-", "one's own.", "It's over."]

    def test_a_folder_without_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"scifact\.zip: there is no such file"):
            claim_pairs(tmp_path)

    @pytest.mark.skipif(not (DATA / "scifact" / "scifact.zip").is_file(), reason="../shared/data is not there")
    def test_the_real_file(self) -> None:
        made = claim_pairs(DATA)
        parts = (made.train, made.development, made.test)
        claims, texts = ([{getattr(pair, field) for pair in part} for part in parts] for field in ("text", "text_pair"))
        assert len(made.test) > 700
        assert len(made.train) > 1000
        assert sum(map(len, claims)) == len(set.union(*claims))
        assert not texts[2] & (texts[0] | texts[1])
        for part in parts:
            assert sum(pair.label == "evidence" for pair in part) * 2 == len(part)


class TestCases:
    def test_every_method_is_a_case(self) -> None:
        judges = {name for name in names() if name != "LinkTokens"}  # no passages to link: benchmarks.context_healing has these
        assert {type(case.method(10)).__name__ for case in CASES.values()} == {*judges, "HeadOnly", "FullFineTuning"}

    def test_the_frozen_head_is_tried_with_no_fewer_rates_than_others(self) -> None:
        assert len(CASES[FLOOR].rates) >= max(len(case.rates) for case in CASES.values())
        assert all(list(case.rates) == sorted(set(case.rates)) for case in CASES.values())

    def test_the_head_alone_trains(self) -> None:
        adapted = trial().adapted(CASES["frozen"], short())
        before = {name: value.clone() for name, value in adapted.base.state_dict().items()}
        trial().developed(adapted, short(0.1))
        changed = {name for name, value in adapted.base.state_dict().items() if not torch.equal(value, before[name])}
        assert changed == {"classifier.weight", "classifier.bias"}
        assert adapted.report().trained == 3 * 32 + 3

    def test_all_weights_train(self) -> None:
        adapted = trial().adapted(CASES["full"], short())
        before = {name: value.clone() for name, value in adapted.base.named_parameters()}
        trial().developed(adapted, short(0.01))
        assert adapted.report().share == 1.0
        assert not {name for name, value in adapted.base.named_parameters() if torch.equal(value, before[name])}

    def test_a_baseline_takes_its_values_back(self) -> None:
        adapted = adapt(tiny("bert"), FullFineTuning())
        state = {name: value.clone() for name, value in adapted.worn.state().items()}
        trial().developed(adapted, short(0.01))
        assert any(not torch.equal(value, adapted.worn.state()[name]) for name, value in state.items())
        adapted.worn.load_state(state)
        assert all(torch.equal(value, adapted.worn.state()[name]) for name, value in state.items())

    def test_a_model_without_a_head_has_no_floor(self) -> None:
        with pytest.raises(AdapterError, match="has no head"):
            adapt(tiny("gpt2"), HeadOnly(), ())


class TestTrial:
    def test_every_case_starts_from_the_same_head(self) -> None:
        heads = [trial().adapted(CASES[name], short()).base.classifier.weight for name in ("frozen", "bitfit")]
        assert torch.equal(*heads)

    def test_every_case_starts_from_the_head_that_was_trained_alone(self) -> None:
        head = trial().probed(CASES["frozen"], short(0.1))
        assert set(head) == {"classifier.weight", "classifier.bias"}
        fresh = trial().load().classifier.bias
        for name in ("frozen", "lora"):
            worn = trial().beginning_with(json.loads(json.dumps(head))).adapted(CASES[name], short())
            ends = ("classifier.bias", "classifier.modules_to_save.default.bias")
            (value,) = [parameter for key, parameter in worn.model.named_parameters() if key.endswith(ends)]
            assert torch.allclose(value, torch.tensor(head["classifier.bias"]))
            assert not torch.allclose(value, fresh)

    @pytest.mark.parametrize("name", [name for name in CASES if name != "cross_attention"])
    def test_a_case_trains_and_is_tested(self, name: str) -> None:
        options = short(CASES[name].rates[-1])
        made = trial().tested(trial().adapted(CASES[name], options), options)
        assert len(made["right"]) == 9
        assert set(made["right"]) <= {"0", "1"}
        assert made["share"] > 0  # of a tiny model, an adapter may be larger than it
        json.dumps(made)

    def test_right_answers_stand_in_the_order_of_the_examples(self) -> None:
        run = trial()
        adapted = run.adapted(CASES["full"], short())
        made = run.tested(adapted, short(0.01))
        right, losses = "", []
        for example in run.test:
            batch = run.task.batch([example])
            with torch.no_grad():
                logits = adapted.model(**batch.inputs[0]).logits
                losses.append(float(run.task.loss(adapted.model, batch)))
            right += "1" if int(logits.argmax(-1)) == example.label else "0"
        assert made["right"] == right
        assert set(right) == {"0", "1"}  # else any order would do
        assert made["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)

    def test_a_rate_is_judged_by_the_development_part(self) -> None:
        run = trial()
        made = [part.developed(part.adapted(CASES["full"], short()), short(0.01)) for part in (run, replace(run, test=()))]
        assert made[0]["right"] == made[1]["right"]
        assert len(made[0]["right"]) == 6

    def test_a_model_without_cross_attention_refuses_it(self) -> None:
        with pytest.raises(AdapterError, match="cross"):
            trial().adapted(CASES["cross_attention"], short())

    def test_seconds_of_each_step(self) -> None:
        run, options = trial(), short(steps=4)
        assert len(run.seconds(run.adapted(CASES["bitfit"], options), options)) == 4


class Scored:
    """Instead of a trial: the loss of each rate on the development part is given."""

    def __init__(self, losses: dict[float, float]) -> None:
        self.losses = losses
        self.runs: list[tuple[str, float, int | None]] = []

    def adapted(self, case: Case, options: Options) -> None:
        return None

    def developed(self, adapted: None, options: Options) -> dict[str, Any]:
        self.runs.append(("developed", options.lr, options.steps))
        if math.isnan(self.losses[options.lr]):
            raise AdapterError("step 2: the loss is nan")
        return {"loss": self.losses[options.lr]}

    def tested(self, adapted: None, options: Options) -> dict[str, Any]:
        self.runs.append(("tested", options.lr, options.steps))
        return {"right": "1101", "told": "what it is"}


class TestQuality:
    def quality(self, folder: Path, trial: Any, steps: int = 5) -> Quality:
        made = Quality(ClaimPairs([], [], []), short(steps=3), short(steps=steps), 32, Kept(folder))
        made.__dict__["_begun"] = trial  # the embedded model is not loaded
        made.__dict__["_shared"] = {}
        return made

    def test_the_rate_with_the_least_loss_is_tested_and_no_other(self, tmp_path: Path) -> None:
        low, middle, high = CASES["frozen"].rates
        scored = Scored({low: 0.7, middle: 0.5, high: 0.6})
        made = self.quality(tmp_path, scored).of("frozen")
        assert scored.runs == [("developed", low, 3), ("developed", middle, 3), ("developed", high, 3), ("tested", middle, 5)]
        assert made is not None
        assert (made.lr, made.right) == (middle, [1, 1, 0, 1])

    def test_a_rate_that_diverges_is_not_taken(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        low, middle, high = CASES["frozen"].rates
        made = self.quality(tmp_path, Scored({low: 0.7, middle: 0.6, high: math.nan})).of("frozen")
        assert made is not None
        assert made.lr == middle
        assert f"frozen, rate {high:g}: step 2: the loss is nan" in capsys.readouterr().out

    def test_what_is_kept_is_not_trained_again(self, tmp_path: Path) -> None:
        losses = dict.fromkeys(CASES["frozen"].rates, 0.5)
        first, again, longer = Scored(losses), Scored(losses), Scored(losses)
        assert self.quality(tmp_path, first).of("frozen") == self.quality(tmp_path, again).of("frozen")
        assert len(first.runs) == 4
        assert not again.runs
        self.quality(tmp_path, longer, steps=6).of("frozen")
        assert longer.runs == [("tested", CASES["frozen"].rates[0], 6)]

    def test_a_refusal_is_printed_with_its_reason(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.quality(tmp_path, trial()).of("cross_attention") is None
        assert "cross_attention: not worn by this model: " in capsys.readouterr().out


class TestRows:
    def made(self) -> dict[tuple[str, str], float]:
        speeds = {"lora": {"peak_mb": 900.0, "loaded_mb": 700.0, "s_per_step": 0.2}}
        return {(row.case, row.metric): row.value for row in rows(RESULTS, speeds)}

    def test_intervals_hold_the_figure(self) -> None:
        made = self.made()
        assert made["lora", "accuracy"] == 0.9
        assert made["lora", "gain"] == pytest.approx(0.3)
        for metric in ("accuracy", "gain"):
            assert made["lora", f"{metric}_min"] < made["lora", metric] < made["lora", f"{metric}_max"]
        assert made["lora", "p_gain"] < 0.01
        assert ("frozen", "gain") not in made

    def test_rate_and_share(self) -> None:
        assert (self.made()["lora", "lr"], self.made()["lora", "trainable_share"]) == (1e-3, 0.25)

    def test_what_each_can_be_written_as(self) -> None:
        made = self.made()
        assert [made["lora", f"exports_{form}"] for form in ("lora", "merged")] == [1, 1]
        assert [made["bitfit", f"exports_{form}"] for form in ("lora", "merged")] == [0, 1]
        assert made["lora", "lora_residual"] == 0
        assert ("bitfit", "lora_residual") not in made

    def test_speed_stands_where_it_was_measured(self) -> None:
        made = self.made()
        assert made["lora", "peak_mb"] == 900.0
        assert ("bitfit", "peak_mb") not in made

    def test_who_does_not_beat_the_frozen_head_is_named(self) -> None:
        assert told(rows(RESULTS, {})) == "1 of 2 cases beat the frozen head; not bitfit"


class TestOptions:
    def test_the_frozen_head_is_always_there(self) -> None:
        assert options(["--data", "d", "--cases", "lora"]).cases == ["frozen", "lora"]

    def test_a_limit_leaves_both_labels(self) -> None:
        with pytest.raises(ConfigError, match="two pairs"):
            options(["--data", "d", "--limit", "1"])
