from __future__ import annotations

import base64
import hashlib
import json
import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lxml.html
import pytest

from rag.core.errors import InputError
from rag.core.types import Passage
from rag.evaluate.account import account
from rag.evaluate.breakdown import breakdown
from rag.evaluate.compare import Comparison, compare
from rag.evaluate.report import write_report
from rag.evaluate.report.calibration import calibration, confidence
from rag.evaluate.report.payload import RETRIEVED, SPANS, TEXT
from rag.evaluate.types import DataSet, Outcome, Question
from tests.rag.evaluate.parts import answered, failed, numbers

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028<!--<script>{{data}}{{script}}&amp;\ud800"
METRICS = ("exact_match", "f1", "calls", "seconds")

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def span(node: str, *children: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"inputs": {}, "output": "", "counts": {}, "notes": [], "error": ""}
    return {"node": node, "at": 0.0, "seconds": 0.5, **empty, **more, "children": list(children)}


def full(question: Question, text: str, seconds: float = 1.0) -> Outcome:
    """An answer with all that an outcome can have."""
    return Outcome(
        question.id,
        text,
        citations=(("p1", True), ("p2", False)),
        retrieved=("p1", "p2", "nowhere"),
        counts={"calls": 2, "logprob": -1.0, "logprob_tokens": 10},
        seconds=seconds,
        trace=span("pipeline", span("answer", inputs={"question": question.question}, output=text, counts={"calls": 2}, notes=["a note"])),
    )


def data_set(count: int = 6) -> DataSet:
    passages = [Passage("p1", "The text of passage one.", "d1", "One"), Passage("p2", "Two.", "d2"), Passage("p3", "Never shown.", "d3")]
    return replace(numbers(count), passages=passages, notes=("a note on the data",))


def two(data: DataSet) -> Comparison:
    """ "bad" fails on the first question and is right on the second; "good" is right on all."""
    bad = [failed(q) if i == 0 else full(q, q.answers[0] if i == 1 else "wrong") for i, q in enumerate(data.questions)]
    return compare(data, {"bad": bad, "good": [full(q, q.answers[0], 2.0) for q in data.questions]}, METRICS, seed=3)


def page(file: Path) -> Any:
    return lxml.html.document_fromstring(file.read_bytes(), parser=lxml.html.HTMLParser(encoding="utf-8", huge_tree=True))


def embedded(file: Path) -> Any:
    (script,) = page(file).xpath("//script[@id='data']")
    assert script.get("type") == "application/json"
    return json.loads(script.text)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


def run_script(file: Path, search: str = "") -> Any:
    """What a reader would find, from the script run over a stand-in for a browser's document."""
    data, script = page(file).xpath("//script")
    text = json.dumps({"data": data.text, "script": script.text, "search": search})
    dom = Path(__file__).with_name("report_dom.js")
    found = subprocess.run(["node", str(dom)], input=text, capture_output=True, text=True, check=False, encoding="utf-8")
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_the_embedded_figures_are_those_of_the_comparison(report: Path) -> None:
    comparison = two(data_set())
    more: dict[str, Any] = {"configurations": {"bad": {"pipeline": "x"}}, "rates": {"bad": 2.0}, "settings": {"limit": 6}}
    groups = {"type": breakdown(comparison, "type"), "answerable": breakdown(comparison, "answerable")}
    write_report(comparison, report, **more, groups=groups)
    found = embedded(report)
    expected = json.loads(json.dumps(account(comparison, **more, groups=groups, differing=())))
    for name in ("data", "settings", "versions", "differences", "breakdown"):
        assert found[name] == expected[name], name
    for one, other in zip(found["pipelines"], expected["pipelines"], strict=True):
        assert one == {**other, "failures": one["failures"]}
    assert found["differences"][0]["corrected"] == comparison.differences[0].corrected
    assert found["pipelines"][0]["failures"] == [{"error": "ModelUnavailable: down", "questions": 1}]
    assert [(m["name"], m["cost"], m["best"], m["high"]) for m in found["metrics"]] == [
        ("exact_match", False, 1, 1),
        ("f1", False, 1, 1),
        ("calls", True, None, None),
        ("seconds", True, None, None),
    ]
    assert [q["id"] for q in found["questions"]] == [q.id for q in comparison.data.questions]
    assert [q["outcomes"][0]["scores"][0] for q in found["questions"]] == list(comparison.results[0].scores["exact_match"])
    assert found["questions"][1]["outcomes"][0]["citations"] == [["p1", True], ["p2", False]]
    assert found["questions"][1]["outcomes"][0]["trace"]["children"][0]["notes"] == ["a note"]
    assert found["passages"] == {"p1": {"title": "One", "text": "The text of passage one."}, "p2": {"title": "", "text": "Two."}}
    assert found["cut"] == []


def test_questions_are_broken_down_by_type_unasked(report: Path) -> None:
    write_report(two(data_set()), report)
    assert [group["value"] for group in embedded(report)["breakdown"]["type"]] == ["even", "odd"]


def test_the_file_stands_alone_and_has_its_landmarks(report: Path) -> None:
    write_report(two(data_set()), report)
    root = page(report)
    assert report.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert root.get("lang") == "en"
    assert root.findtext(".//title") == "Evaluation: numbers"
    assert [len(root.xpath(f"//{tag}")) for tag in ("header", "main", "nav", "footer", "h1")] == [1] * 5
    assert root.xpath("//meta[@name='viewport']")
    assert root.xpath("//a[@href='#main']")
    assert not root.xpath("//link | //img | //iframe | //object | //embed | //base | //*[@src]")
    assert all(link.get("href").startswith("#") for link in root.xpath("//*[@href]"))
    style = root.findtext(".//style")
    assert "@import" not in style
    assert "url(" not in style
    assert "prefers-color-scheme: dark" in style
    assert not [word for word in ("fetch(", "XMLHttpRequest", "import(", "innerHTML", "eval(") if word in root.xpath("//script")[1].text]


def test_the_policy_allows_this_script_and_this_style_and_nothing_else(report: Path) -> None:
    write_report(two(data_set()), report)
    root = page(report)
    (policy,) = root.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for rule, text in (("script-src", root.xpath("//script")[1].text), ("style-src", root.findtext(".//style"))):
        assert rules[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert rules["default-src"] == "'none'"


def hostile() -> Comparison:
    """Hostile text in every place that a run or a data set fills."""
    question = Question("q<1>", HOSTILE, (HOSTILE,), gold=(HOSTILE,), kind=HOSTILE, metadata={HOSTILE: HOSTILE})
    data = DataSet(HOSTILE, [question], [Passage(HOSTILE, HOSTILE, HOSTILE, HOSTILE)], ("f1",), "en", HOSTILE, "x", (HOSTILE,))
    trace = span(HOSTILE, span(HOSTILE, output=HOSTILE, error=HOSTILE), inputs={HOSTILE: HOSTILE}, counts={HOSTILE: 1.0}, notes=[HOSTILE])
    good = Outcome(question.id, HOSTILE, citations=((HOSTILE, False),), retrieved=(HOSTILE,), trace=trace)
    return compare(data, {f"a{HOSTILE}": [good], "b": [failed(question, HOSTILE)]}, ("f1", "calls"))


def test_hostile_text_stays_text(report: Path) -> None:
    comparison = hostile()
    write_report(comparison, report, settings={"data": HOSTILE}, configurations={"b": {HOSTILE: HOSTILE}})
    text = report.read_bytes().decode()
    root = page(report)
    assert len(root.xpath("//script")) == text.count("<script") == text.count("</script") == 2
    assert not root.xpath("//img | //*[@onerror]")
    raw = root.xpath("//script[@id='data']")[0].text
    assert not set("<>&\u2028\u2029") & set(raw)
    assert json.loads(raw)["questions"][0]["outcomes"][0]["answer"] == HOSTILE
    assert "{{data}}" in root.findtext(".//title")


@needs_node
def test_the_script_shows_hostile_text_as_text(report: Path) -> None:
    write_report(hostile(), report, settings={"data": HOSTILE}, configurations={"b": {HOSTILE: HOSTILE}})
    found = run_script(report)
    assert not {"img", "script", "iframe"} & set(found["tags"])
    assert not [name for name in found["attributes"] if name.startswith("on") or name in ("src", "style")]
    assert found["detail"].count("</script><img src=x onerror=alert(1)>") >= 10
    assert found["focused"]


@needs_node
def test_the_script_is_one_that_node_can_read(report: Path, tmp_path: Path) -> None:
    write_report(two(data_set()), report)
    script = tmp_path / "script.js"
    script.write_text(page(report).xpath("//script")[1].text, "utf-8")
    checked = subprocess.run(["node", "--check", str(script)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@needs_node
def test_the_script_draws_and_filters(report: Path) -> None:
    write_report(two(data_set()), report, rates={"bad": 2.0}, configurations={"bad": {"pipeline": "nodes: {}"}})
    found = run_script(report, search="NUMBER 3")
    assert found["titles"] == ["Figures", "Failures", "Plots", "Questions", "Configurations"]
    assert found["shown"] == {
        "all": [f"number {n}" for n in range(1, 7)],
        "right": [f"number {n}" for n in range(1, 7)],
        "wrong": [f"number {n}" for n in range(3, 7)],
        "failed": ["number 1"],
        "differ": [f"number {n}" for n in (1, 3, 4, 5, 6)],
    }
    assert found["searched"] == ["number 3"]
    for text in (
        "number 3",
        "wrong",
        "p1 (supported)",
        "p2 (not supported)",
        "The text of passage one.",
        "(its text is not in this file)",
        "a note",
    ):
        assert text in found["detail"], text
    assert "1 of 6" in found["page"]
    assert "0.200 [0.000, 0.600]" in found["page"]
    assert "+0.800 [+0.400, +1.000]" in found["page"]
    assert "a note on the data" in found["page"]
    for start in (
        "exact_match: mean",
        "exact_match against seconds",
        "type even: exact_match",
        "type odd",
        "exact_match against confidence",
    ):
        assert any(drawing.startswith(start) for drawing in found["drawings"]), start
    assert found["numbers"] == []


@needs_node
@pytest.mark.parametrize("questions", [0, 3])
def test_runs_without_a_single_answer(report: Path, questions: int) -> None:
    data = replace(numbers(3), questions=numbers(3).questions[:questions])
    write_report(compare(data, {"a": [failed(q) for q in data.questions], "b": [failed(q) for q in data.questions]}, METRICS), report)
    data_in = embedded(report)
    assert data_in["pipelines"][0]["means"]["f1"] is None
    assert data_in["differences"] == []
    found = run_script(report)
    assert found["titles"] == (["Figures", "Failures", "Questions"] if questions else ["Figures"])
    assert found["drawings"] == []


def logged(data: DataSet, pairs: Sequence[tuple[float, bool]]) -> Comparison:
    """One answer per pair of confidence and rightness."""
    outcomes = [
        replace(answered(q, q.answers[0] if right else "wrong"), counts={"logprob": 4 * math.log(sure), "logprob_tokens": 4})
        for q, (sure, right) in zip(data.questions, pairs, strict=True)
    ]
    return compare(data, {"a": outcomes}, ("exact_match",))


def test_calibration_bins_confidence_and_weighs_their_gaps() -> None:
    comparison = logged(numbers(4), [(0.95, True), (0.95, False), (0.25, False), (1.0, True)])
    found = calibration(comparison.results[0], "exact_match")
    assert found is not None
    low, high = found.bins
    assert (low.low, low.high, low.n, low.score) == (0.2, 0.3, 1, 0)
    assert low.confidence == pytest.approx(0.25)
    assert (high.low, high.high, high.n) == (0.9, 1.0, 3)
    assert high.score == pytest.approx(2 / 3)
    assert high.confidence == pytest.approx(2.9 / 3)
    assert found.error == pytest.approx((0.25 + 0.9) / 4)


@pytest.mark.parametrize("counts", [{}, {"logprob": -1.0}, {"logprob": -1.0, "logprob_tokens": 0}, {"logprob": 1.0, "logprob_tokens": 2}])
def test_without_log_probabilities_there_is_no_confidence(report: Path, counts: dict[str, float]) -> None:
    data = numbers(2)
    outcomes = [replace(answered(q, "1"), counts=counts) for q in data.questions]
    assert confidence(outcomes[0]) is None
    write_report(compare(data, {"a": outcomes}, ("f1",)), report)
    found = embedded(report)
    assert found["calibration"] == {}
    assert found["questions"][0]["outcomes"][0]["confidence"] is None


def test_long_texts_lists_and_traces_are_shortened_and_say_so(report: Path) -> None:
    data = numbers(1)
    (question,) = data.questions
    trace = span("root", *(span(f"n{i}") for i in range(SPANS + 5)))
    long = Outcome(question.id, "x" * (TEXT + 7), retrieved=tuple(f"p{i}" for i in range(RETRIEVED + 9)), trace=trace)
    write_report(compare(data, {"a": [long]}, ("f1",)), report)
    (outcome,) = embedded(report)["questions"][0]["outcomes"]
    assert outcome["answer"] == "x" * TEXT + "… [7 more characters]"
    assert (len(outcome["retrieved"]), outcome["retrieved_in_all"]) == (RETRIEVED, RETRIEVED + 9)
    assert (len(outcome["trace"]["children"]), outcome["trace"]["left_out"]) == (SPANS - 1, 6)


def test_what_does_not_fit_is_left_out_and_counted(report: Path) -> None:
    comparison = two(data_set(40))
    write_report(comparison, report, limit=0)
    nothing = embedded(report)
    assert (nothing["questions"], nothing["passages"]) == ([], {})
    assert nothing["cut"] == ["40 questions are not in this file, which is limited to 0 bytes of data; the figures count all questions."]
    size = report.stat().st_size
    write_report(comparison, report, limit=20_000)
    found = embedded(report)
    kept = len(found["questions"])
    assert 0 < kept < 40
    assert [q["id"] for q in found["questions"]] == [f"q{n}" for n in range(1, kept + 1)]
    assert found["cut"][0].startswith(f"{40 - kept} questions are not in this file")
    assert report.stat().st_size <= size + 20_000 + 2_000
    assert found["pipelines"] == nothing["pipelines"]

    write_report(comparison, report)
    whole = embedded(report)
    without = json.dumps(
        [{**q, "outcomes": [{**o, "trace": None} for o in q["outcomes"]]} for q in whole["questions"]], separators=(",", ":")
    )
    write_report(comparison, report, limit=len(without.encode()) + 2_000)
    some = embedded(report)
    assert len(some["questions"]) == 40
    assert some["passages"] == whole["passages"]
    traces = [o["trace"] for q in some["questions"] for o in q["outcomes"]]
    assert traces[1] is not None
    assert traces[-1] is None
    (cut,) = some["cut"]
    assert cut.startswith(f"{79 - sum(trace is not None for trace in traces)} traces are not in this file")


def test_a_passage_shown_by_its_document_has_the_documents_text(report: Path) -> None:
    data = data_set(1)
    outcome = Outcome("q1", "1", retrieved=("d2",))
    write_report(compare(data, {"a": [outcome]}, ("f1",)), report)
    assert embedded(report)["passages"] == {"d2": {"title": "", "text": "Two."}}


def test_what_json_cannot_hold_is_null_or_text(report: Path) -> None:
    data = numbers(1)
    outcome = replace(answered(data.questions[0], "1"), counts={"odd": math.nan})
    write_report(compare(data, {"a": [outcome]}, ("f1",)), report, settings={"file": Path("x")})
    found = embedded(report)
    assert found["questions"][0]["outcomes"][0]["counts"] == {"odd": None}
    assert found["settings"]["file"] == "x"


def test_the_file_is_replaced_whole_or_stays(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report.write_text("before")
    comparison = two(data_set())

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_disk)
        with pytest.raises(InputError, match=r"report\.html: the report cannot be written \(No space left on device\)"):
            write_report(comparison, report)
    assert report.read_text() == "before"
    write_report(comparison, report)
    assert embedded(report)["metrics"]
    assert [file.name for file in report.parent.iterdir()] == ["report.html"]


def test_where_it_cannot_be_written_it_says_so(tmp_path: Path) -> None:
    comparison = two(data_set())
    with pytest.raises(InputError, match="this is a folder; name a file"):
        write_report(comparison, tmp_path)
    with pytest.raises(InputError, match=r"x\.html: the report cannot be written \(No such file or directory\)"):
        write_report(comparison, tmp_path / "nowhere" / "x.html")
    with pytest.raises(InputError, match="limit must be a number of bytes from 0, not -1"):
        write_report(comparison, tmp_path / "x.html", limit=-1)
    assert list(tmp_path.iterdir()) == []


def test_bins_are_json(report: Path) -> None:
    comparison = logged(numbers(2), [(0.5, True), (0.7, False)])
    write_report(comparison, report)
    found = calibration(comparison.results[0], "exact_match")
    assert found is not None
    assert embedded(report)["calibration"] == {"a": {"exact_match": json.loads(json.dumps(asdict(found)))}}
