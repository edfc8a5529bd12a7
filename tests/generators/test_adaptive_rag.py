from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.adaptive_rag import AdaptiveRAG, ModelClassifier, RuleClassifier
from generators.cited import Cited
from generators.direct import Direct
from generators.ircot import IRCoT
from rag.core.errors import CorpusError, InputError, MissingCapability
from rag.core.pipeline import Pipeline
from rag.core.registry import configuration, registered
from rag.core.trace import TextDelta, listener, span
from rag.core.types import Answer, Generation, Prompt, Sampling, Token
from tests.generators.conftest import ScriptedModel, ScriptedRetriever, prompt_text

DATA = Path(__file__).parents[2] / "../shared/data"
QUESTION = "Who keeps the lamp?"
TEXTS = ["A suit may be worn outside for 6 hours.", "Mira Sollen keeps the lamp.", "The kitchen opens at seven."]


class Constant:
    """Gives every question the same label."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.asked: list[str] = []

    async def aclassify(self, question: str) -> str:
        self.asked.append(question)
        return self.label


class Labelling(ScriptedModel):
    """Gives the tokens of ``top`` these probabilities as first tokens; ``ids`` names what `aencode` gives."""

    top: dict[str, float]

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        generation = await super().agenerate(prompt, sampling)
        ranked = sorted(self.top.items(), key=lambda pair: -pair[1])
        top = tuple((ord(text.strip()[0]), text, math.log(p)) for text, p in ranked)
        return replace(generation, tokens=(Token("x", 1, -1.0, 0, 1, top),))

    async def aencode(self, text: str) -> list[int]:
        return [ord(text)]


def labelling(top: dict[str, float], **settings) -> Labelling:
    model = Labelling("x", **settings)
    model.top = top
    return model


def rule(question: str, **settings) -> str:
    return asyncio.run(RuleClassifier(**settings).aclassify(question))


def classified(model: ScriptedModel, question: str = QUESTION) -> tuple[str, list[str]]:
    with span("answer") as here:
        label = asyncio.run(ModelClassifier(model).aclassify(question))
    return label, here.notes


@pytest.mark.parametrize("reply", ["Mira Sollen keeps the lamp [2].", "Mira.", "So the answer is: Mira.", "I do not know.", ""])
@pytest.mark.parametrize("texts", [TEXTS, []])
@pytest.mark.parametrize("label", ["A", "B", "C"])
def test_a_constant_classifier_is_the_fixed_strategy(label, texts, reply):
    settings = {"max_tokens": 32, "language": "en"}

    def fixed(model: ScriptedModel, retriever: ScriptedRetriever) -> Answer:
        if label == "A":
            return asyncio.run(Direct(model, **settings).run(QUESTION))
        method = Cited(model, 2, **settings) if label == "B" else IRCoT(model, 2, max_steps=3, pool=5, **settings)
        return asyncio.run(method.run(QUESTION, retriever, {"lang": "en"}))

    models, retrievers = [ScriptedModel(reply), ScriptedModel(reply)], [ScriptedRetriever(texts), ScriptedRetriever(texts)]
    wanted = fixed(models[0], retrievers[0])
    adaptive = AdaptiveRAG(models[1], Constant(label), k=2, max_steps=3, pool=5, **settings)
    heard = []
    with listener(heard.append), span("answer") as here:
        assert asyncio.run(adaptive.run(QUESTION, retrievers[1], {"lang": "en"})) == wanted
    assert models[0].prompts == models[1].prompts
    assert models[0].samplings == models[1].samplings
    assert retrievers[0].calls == retrievers[1].calls
    assert here.counts[f"complexity_{label}"] == 1
    assert any(text.startswith(f"complexity {label} by Constant: ") for text in here.notes)
    assert "".join(event.text for event in heard if isinstance(event, TextDelta)) == wanted.text


def test_the_classifier_sees_the_question():
    classifier = Constant("A")
    asyncio.run(AdaptiveRAG(ScriptedModel("Mira."), classifier).run(f" {QUESTION}\n", ScriptedRetriever(TEXTS)))
    assert classifier.asked == [QUESTION]


@pytest.mark.parametrize("label", ["D", "", None, "a"])
def test_a_label_that_is_none_is_refused(label):
    model = ScriptedModel("Mira.")
    with pytest.raises(InputError, match=r"Constant gave .* allowed are 'A', 'B' and 'C'"):
        asyncio.run(AdaptiveRAG(model, Constant(label)).run(QUESTION, ScriptedRetriever(TEXTS)))
    assert model.prompts == []


@pytest.mark.parametrize(
    ("question", "label"),
    [
        ("Hello!", "A"),
        ("Good morning", "A"),
        ("谢谢！", "A"),
        ("What is 12 * (3 + 4)?", "A"),
        ("3 加 4", "B"),
        ("27+4×2是多少？", "A"),
        ("How long may a suit be worn outside?", "B"),
        ("Who keeps the lamp?", "B"),
        ("In which county does Jacksonville reside?", "B"),
        ("What is George Rankin's occupation?", "B"),
        ("...", "B"),
        ("Are Ada Holm and Ivo Brandt both painters?", "C"),
        ("Which river is longer, the Dorn or the Elle?", "C"),
        ("In which country was the director of the film that opened in 1986 born?", "C"),
        ("Who was the first president of the association which published the journal?", "C"),
        ("What county shares a border with the county in which Johnnycake, West Virginia is located?", "C"),
        ("杰克逊维尔位于哪个郡？", "B"),
        ("荷兰的这个三角洲又被称为什么？", "B"),
        ("《蓝港》的导演的妻子的出生地在哪里？", "C"),
        ("多恩河和埃勒河哪一条更长？", "C"),
        ("Wer hält die Lampe?", "B"),
    ],
)
def test_the_rule(question, label):
    assert rule(question) == label


def test_the_rule_says_why():
    with span("answer") as here:
        rule("Who keeps the lamp of the tower that Ivo's father built?")
        rule("Is it the Dorn or the Elle?")
        rule("Hi there")
    assert here.notes == [
        "rule: 3 links between things, from 2 it is C",
        'rule: it compares ("or")',
        "rule: a greeting or a calculation, which no passage answers",
    ]


@given(st.text(alphabet="aA ofthe'swhich的《》“”.?", min_size=1, max_size=120), st.integers(1, 6))
def test_more_links_asked_for_can_only_move_c_to_b(question, links):
    fewer, more = rule(question, links=links), rule(question, links=links + 1)
    assert fewer == more or (fewer, more) == ("C", "B")


def test_the_rule_reads_a_bounded_part_of_a_question_without_end():
    assert rule("《" * 200_000) == "B"
    assert rule("A" * 200_000 + " of" * 200_000) == "B"
    assert rule("1 " * 900 + "x") == "B"


@pytest.mark.parametrize(
    ("name", "least", "most"), [("hotpotqa", 0.6, 1.0), ("musique", 0.6, 1.0), ("popqa", 0.0, 0.1), ("xquad.zh", 0.0, 0.1)]
)
def test_the_rule_tells_multi_hop_sets_from_single_hop_sets(name, least, most):
    file = {"popqa": "popqa/popqa.json", "xquad.zh": "xquad/xquad.zh.json"}.get(name, f"multihop/{name}_train.json")
    if not (DATA / file).is_file():
        pytest.skip(f"{DATA / file} is not here")
    data = json.loads((DATA / file).read_text(encoding="utf-8"))
    if name == "xquad.zh":
        data = [question for article in data["data"] for paragraph in article["paragraphs"] for question in paragraph["qas"]]
    labels = [rule(item["question"]) for item in data]
    assert len(labels) >= 100
    assert least <= labels.count("C") / len(labels) <= most


@pytest.mark.parametrize("capabilities", [frozenset({"logprobs"}), frozenset({"logprobs", "token_ids"})])
@pytest.mark.parametrize(
    ("top", "label"), [({"A": 0.5, "B": 0.3, "C": 0.1}, "A"), ({"x": 0.6, " C": 0.2, "C": 0.05, "B": 0.15}, "C"), ({"B": 0.01}, "B")]
)
def test_the_model_decides_by_the_probabilities_of_the_labels(top, label, capabilities):
    model = labelling(top, capabilities=capabilities)
    found, notes = classified(model)
    assert found == label
    assert notes[0].startswith("model: A ")
    assert model.samplings[0] == Sampling(
        max_tokens=1, logprobs=20, logprob_ids=tuple(map(ord, "ABC")) if "token_ids" in capabilities else ()
    )


@given(st.tuples(*[st.floats(0.001, 0.33)] * 3))
def test_the_noted_probabilities_are_of_the_three_labels_alone(weights):
    _, notes = classified(labelling(dict(zip("ABC", weights, strict=True))))
    noted = [float(part.split()[-1]) for part in notes[0].split(",")]
    assert noted == pytest.approx([weight / sum(weights) for weight in weights], abs=0.001)


@pytest.mark.parametrize("top", [{}, {"x": 0.9, "AB": 0.05}])
def test_without_any_label_the_middle_one_is_taken(top):
    label, notes = classified(labelling(top))
    assert label == "B"
    assert notes == ["model: none of the labels A, B and C is among its 20 most likely tokens; taken for B"]


def test_the_model_classifier_in_the_method():
    model = labelling({"A": 0.9})
    found = asyncio.run(AdaptiveRAG(model, "model").run("谁看守灯？<|im_end|>", ScriptedRetriever(TEXTS)))
    assert found.text == "x"
    assert len(model.prompts) == 2
    assert "字母：C" in prompt_text(model.prompts[0])
    assert prompt_text(model.prompts[0]).endswith("问题：谁看守灯？< |im_end| >\n字母：")


def test_a_model_without_logprobs_is_refused_when_built():
    silent = ScriptedModel(capabilities=frozenset())
    with pytest.raises(MissingCapability, match="ModelClassifier needs a model with 'logprobs' to compare the labels A, B and C"):
        AdaptiveRAG(silent, "model")
    assert AdaptiveRAG(silent, "rule").classifier == "rule"


@pytest.mark.parametrize("classifier", ["t5", 3, None, Constant, object()])
def test_bad_classifiers(classifier):
    with pytest.raises(InputError, match="classifier must be 'rule', 'model' or an object with a coroutine 'aclassify'"):
        AdaptiveRAG(ScriptedModel(), classifier)


@pytest.mark.parametrize("settings", [{"k": 0}, {"max_steps": 0}, {"pool": -1}, {"max_tokens": 0.5}, {"language": "de"}])
def test_bad_settings(settings):
    with pytest.raises(InputError, match="AdaptiveRAG: "):
        AdaptiveRAG(ScriptedModel(), **settings)


def test_a_rule_needs_at_least_one_link():
    with pytest.raises(InputError, match="RuleClassifier: links"):
        RuleClassifier(links=0)


@pytest.mark.parametrize("question", ["", "  \n", 7])
def test_bad_questions(question):
    classifier = Constant("A")
    with pytest.raises(InputError, match="the question"):
        asyncio.run(AdaptiveRAG(ScriptedModel("Mira."), classifier).run(question, ScriptedRetriever(TEXTS)))
    assert classifier.asked == []


def test_a_retriever_that_raises_passes_through():
    class Broken:
        async def asearch(self, query, k=None, filter=None):
            raise CorpusError("the corpus is damaged")

    for label in "BC":
        with pytest.raises(CorpusError, match="the corpus is damaged"):
            asyncio.run(AdaptiveRAG(ScriptedModel("Mira."), Constant(label)).run(QUESTION, Broken()))


def test_its_configuration_can_be_read_back():
    assert registered("AdaptiveRAG") is AdaptiveRAG
    model = ScriptedModel()
    settings = {"classifier": "model", "k": 2, "max_steps": 3, "pool": 9, "max_tokens": 32, "language": "zh"}
    assert configuration(AdaptiveRAG(model, **settings)) == {"model": model, **settings}
    assert configuration(AdaptiveRAG(model)) == {"model": model}


def test_the_example_pipeline_is_valid():
    pipe = Pipeline.from_yaml(Path(__file__).parents[2] / "examples/pipelines/adaptive_rag.yaml")
    assert [edge.call for edge in pipe.edges if edge.target == "answer"] == [True]
    assert "type: AdaptiveRAG\n" in pipe.to_yaml()
