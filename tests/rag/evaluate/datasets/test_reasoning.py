"""BIG-Bench Hard, GSM8K and SVAMP: no passages."""

from __future__ import annotations

import pytest

from rag.core.errors import InputError
from rag.evaluate.datasets import load
from tests.rag.evaluate.datasets.conftest import Write

TASK = {"canary": "…", "examples": [{"input": "2 + 2 is", "target": "4"}, {"input": "2 + 2 is", "target": "4"}]}


def test_bbh_reads_a_task_or_a_folder_of_them(write: Write) -> None:
    folder = write("tasks/sums.json", TASK).parent
    write("tasks/more.json", TASK)
    assert [(q.id, q.kind) for q in load(folder / "sums.json").questions] == [("sums-1", "sums"), ("sums-2", "sums")]
    assert [q.id for q in load(folder).questions] == ["more-1", "more-2", "sums-1", "sums-2"]


def test_a_bbh_folder_with_a_file_that_is_none(write: Write) -> None:
    write("tasks/a.json", TASK)
    folder = write("tasks/b.json", {"other": 1}).parent
    with pytest.raises(InputError, match=r"b\.json: 'examples' is missing\. Format bbh expects examples"):
        load(folder)


def test_gsm8k_takes_the_number_after_the_mark(write: Write) -> None:
    question = load(write("x.jsonl", [{"question": "How many?", "answer": "1000 + 125 = 1125\n#### 1,125"}])).questions[0]
    assert (question.answers, question.metadata["solution"]) == (("1125",), "1000 + 125 = 1125")


@pytest.mark.parametrize("answer", ["1125", "1000 #### "])
def test_a_gsm8k_answer_without_a_number(write: Write, answer: str) -> None:
    with pytest.raises(InputError, match=r"line 2: 'answer' must end in #### and a number"):
        load(write("x.jsonl", [{"question": "How many?", "answer": "#### 1"}, {"question": "How many?", "answer": answer}]))


def test_svamp_joins_body_and_question(write: Write) -> None:
    row = {
        "ID": "chal-1",
        "Body": "A pack costs 76 dollars",
        "Question": "How much?",
        "Equation": "( 76.0 - 0.5 )",
        "Answer": 75.5,
        "Type": "Subtraction",
    }
    first, second = load(write("SVAMP.json", [row, {**row, "ID": "chal-2", "Body": "It costs 9.", "Answer": 9.0}])).questions
    assert (first.id, first.question, first.answers, first.kind) == (
        "chal-1",
        "A pack costs 76 dollars. How much?",
        ("75.5",),
        "Subtraction",
    )
    assert (second.question, second.answers) == ("It costs 9. How much?", ("9",))


def test_a_word_problem_table_gets_its_numbers(write: Write) -> None:
    table = "Question,Numbers,Equation,Answer\nHas number0 of number1 in number10,56.0 9.5 1 1 1 1 1 1 1 1 3,* number0 number1,504.0\n"
    question = load(write("dev.csv", table)).questions[0]
    assert (question.question, question.answers, question.metadata["equation"]) == ("Has 56 of 9.5 in 3", ("504",), "* 56 9.5")


@pytest.mark.parametrize(
    ("row", "message"), [("Has number2,1 2,+ number0 number1,3", "number2 stands in the text"), ("Has 1,1,x,many", "'Answer' must be")]
)
def test_a_word_problem_that_does_not_fit(write: Write, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write("dev.csv", f"Question,Numbers,Equation,Answer\n{row}\n"))
