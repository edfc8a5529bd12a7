from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import InputError, ReadError
from rag.evaluate.datasets import load
from tests.rag.evaluate.datasets.conftest import Write


def numbered(n: int) -> list[dict[str, Any]]:
    return [{"id": f"q{i:03}", "question": f"Question {i}?", "answers": [str(i)]} for i in range(n)]


def ids(path: Path, **arguments: Any) -> list[str]:
    return [question.id for question in load(path, **arguments).questions]


def test_limit_takes_the_first_and_all_where_there_are_fewer(write: Write) -> None:
    path = write("own.jsonl", numbered(5))
    assert ids(path, limit=2) == ["q000", "q001"]
    assert ids(path, limit=99) == ids(path)


def test_a_sample_is_the_same_everywhere_and_keeps_the_order(write: Write) -> None:
    path = write("own.jsonl", numbered(100))
    assert ids(path, sample=5) == EXPECTED
    assert ids(path, sample=5, seed=1) != EXPECTED
    assert ids(path, sample=100) == ids(path)


def test_a_larger_sample_holds_the_smaller_one_and_order_does_not_matter(write: Write) -> None:
    path = write("own.jsonl", numbered(100))
    reverse = write("reverse.jsonl", numbered(100)[::-1])
    assert set(ids(path, sample=5)) < set(ids(path, sample=20))
    assert set(ids(path, sample=20)) == set(ids(reverse, sample=20))


# of `sha256sum` over "0:q000" to "0:q099" the five lowest; if this changes, samples of published runs cannot be drawn again
EXPECTED = ["q016", "q022", "q059", "q060", "q065"]


@pytest.mark.parametrize("argument", ["limit", "sample"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3"])
def test_a_selection_below_one_or_no_number_is_refused(write: Write, argument: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{argument} must be a whole number of questions, 1 or more"):
        load(write("own.jsonl", numbered(3)), **{argument: value})


def test_a_sample_larger_than_the_set_is_refused(write: Write) -> None:
    with pytest.raises(InputError, match="cannot draw a sample of 4 from 3 questions"):
        load(write("own.jsonl", numbered(3)), sample=4)


def test_limit_and_sample_exclude_each_other(write: Write) -> None:
    with pytest.raises(InputError, match="not both"):
        load(write("own.jsonl", numbered(3)), limit=1, sample=1)


def test_the_seed_must_be_a_whole_number(write: Write) -> None:
    with pytest.raises(InputError, match="seed must be a whole number"):
        load(write("own.jsonl", numbered(3)), seed="x")  # type: ignore[arg-type]


def test_the_fingerprint_names_the_records_and_nothing_else(write: Write) -> None:
    first = load(write("a.jsonl", numbered(3))).fingerprint
    assert len(first) == 64
    assert load(write("b.json", numbered(3))).fingerprint == first  # another file, the same records
    assert load(write("a.jsonl", numbered(3)), limit=2).fingerprint != first
    changed = numbered(3)
    changed[2]["answers"] = ["two"]
    assert load(write("c.jsonl", changed)).fingerprint != first


def test_repeated_ids_are_counted_and_listed(write: Write) -> None:
    with pytest.raises(InputError, match=r"1 question id is given more than once; ids must be unique: q000"):
        load(write("own.jsonl", [*numbered(2), *numbered(1)]))


def test_questions_without_answers_are_counted_and_listed(write: Write) -> None:
    rows = numbered(9)
    for row in rows[1:8]:
        row["answers"] = []
    with pytest.raises(InputError, match=r"7 questions have no answer and are not marked .* q001, q002, q003, q004, q005 and 2 more"):
        load(write("own.jsonl", rows))


def test_gold_that_the_corpus_lacks_is_kept_counted_and_listed(write: Write) -> None:
    write("beir/corpus.jsonl", [{"_id": "d1", "title": "", "text": "Here."}])
    write("beir/queries.jsonl", [{"_id": "q1", "text": "Where?"}])
    folder = write("beir/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t1\n").parents[1]
    data = load(folder)
    assert data.questions[0].gold == ("d1", "d2")
    assert "1 gold passage is missing from the corpus and cannot be found: d2 (question q1)" in data.notes


def test_an_unknown_format_lists_the_known_ones(write: Write) -> None:
    with pytest.raises(InputError, match=r"there is no data format 'squat'; known are: .*popqa.*squad"):
        load(write("own.jsonl", numbered(1)), format="squat")


def test_content_that_no_format_recognises_says_what_was_tried(write: Write) -> None:
    with pytest.raises(InputError, match=r"its first record has 'text', 'label'\). Tried: 2wiki.*squad.*question, answers"):
        load(write("x.jsonl", [{"text": "a", "label": 1}]))


def test_content_that_two_formats_recognise_asks_for_a_name(write: Write) -> None:
    both = {"question": "Why?", "answers": ["so"], "ctxs": [{"text": "So."}], "facts": ["So."], "qid": "1"}
    with pytest.raises(InputError, match="could be musique_contexts or strategyqa; name one"):
        load(write("x.json", [both]))


def test_a_folder_and_an_archive_that_no_format_recognises(write: Write, tmp_path: Path) -> None:
    write("a/readme.txt", "hello")
    with pytest.raises(InputError, match=r"it holds readme\.txt"):
        load(tmp_path / "a")
    with pytest.raises(InputError, match="an archive"):
        load(write("a.zip", b"PK not really"))


def test_a_missing_file_is_a_read_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="there is no such file or folder"):
        load(tmp_path / "none.json")


def test_a_format_that_reads_records_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="squad is read from a file of records, not from a folder"):
        load(tmp_path, format="squad")


def test_the_error_for_another_format_shows_the_record_shortened_and_the_fields(write: Write) -> None:
    path = write("own.jsonl", [{"id": "q1", "question": "Q" * 5000, "answers": ["a"]}, *numbered(1)])
    with pytest.raises(InputError) as error:
        load(path, format="popqa")
    assert "line 1: 'possible_answers' is missing. Format popqa expects id, question, possible_answers" in str(error.value)
    assert '"question": "QQQQ' in str(error.value)
    assert len(str(error.value)) < 700


def test_a_small_sample_names_only_metrics_that_fit_it(write: Write) -> None:
    rows = [*numbered(2), {"id": "u", "question": "Unknown?", "type": "unanswerable"}]
    path = write("own.jsonl", rows)
    assert load(path).metrics == ("exact_match", "f1", "refusal", "false_refusal")
    assert load(path, limit=2).metrics == ("exact_match", "f1")


@pytest.mark.parametrize("name", ["train.json", "questions.jsonl"])
def test_a_name_that_says_nothing_gets_its_folders(write: Write, name: str) -> None:
    assert load(write(f"harbour/{name}", numbered(1))).name == f"harbour-{Path(name).stem}"
