from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from rag.core.errors import InputError, MissingDependency
from rag.evaluate.datasets import load

ROW = {"id": "a", "title": "T", "context": "C.", "question": "Q?", "answers": {"text": ["C"], "answer_start": [0]}}


class Hub(ModuleType):
    """Stands for the package datasets and remembers what it was asked for."""

    def __init__(self, splits: dict[str, list[dict[str, Any]]] | Exception) -> None:
        super().__init__("datasets")
        self.splits = splits
        self.asked: list[tuple[Any, ...]] = []

    def load_dataset(self, *arguments: Any, **named: Any) -> dict[str, list[dict[str, Any]]]:
        self.asked.append((*arguments, named))
        if isinstance(self.splits, Exception):
            raise self.splits
        return self.splits


def hub(monkeypatch: pytest.MonkeyPatch, splits: dict[str, list[dict[str, Any]]] | Exception) -> Hub:
    module = Hub(splits)
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_records_of_the_hub_are_read_as_files_are(monkeypatch: pytest.MonkeyPatch) -> None:
    module = hub(monkeypatch, {"train": [], "validation": [ROW, {**ROW, "id": "b"}]})
    data = load("hub:rajpurkar/squad", limit=1)
    assert (data.name, data.questions[0].id, data.questions[0].gold) == ("squad-validation", "a", ("T",))
    assert module.asked == [("rajpurkar/squad", None, {"trust_remote_code": False})]


def test_configuration_and_split_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = hub(monkeypatch, {"train": [{"question": "who", "answer": ["a"]}], "test": []})
    data = load("hub:nq_open:short@train")
    assert (data.name, data.questions[0].answers) == ("nq_open-short-train", ("a",))
    assert module.asked[0][:2] == ("nq_open", "short")


def test_a_split_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"train": [ROW]})
    with pytest.raises(InputError, match=r"there is no split 'dev'; there are: train\. Write hub:squad@SPLIT"):
        load("hub:squad@dev")


def test_an_empty_split(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"test": []})
    with pytest.raises(InputError, match="no known data format"):
        load("hub:squad")


def test_a_record_that_does_not_fit_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, {"test": [ROW, {**ROW, "context": None}]})
    with pytest.raises(InputError, match=r"squad-test, record 2: 'context' or 'context_text' is missing"):
        load("hub:squad")


def test_without_a_network_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, ConnectionError("Couldn't reach 'squad' on the Hub"))
    with pytest.raises(InputError, match=r"does not give it \(ConnectionError: Couldn't reach .*or download the file") as error:
        load("hub:squad")
    assert isinstance(error.value.__cause__, ConnectionError)


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match=r"pip install 'graft-rag\[datasets\]'"):
        load("hub:squad")


@pytest.mark.parametrize("address", ["hub:", "hub:@test", "hub:a@b@c", "hub:a@"])
def test_a_malformed_address(address: str) -> None:
    with pytest.raises(InputError, match="is no address on the hub"):
        load(address)
