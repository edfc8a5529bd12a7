from __future__ import annotations

import pytest

from generators.flare.search_call import Segment, segment_of
from rag.core.types import Generation


@pytest.mark.parametrize(
    ("text", "finish", "segment"),
    [
        ("It is lit.", "stop", Segment("It is lit.", None, True)),
        ("It is", "length", Segment("It is", None, False)),
        ("", "stop", Segment("", None, True)),
        ("It is kept by [Search(keeper of the lamp", "stop", Segment("It is kept by", "keeper of the lamp", False)),
        ('[Search("keeper of the lamp"', "stop", Segment("", "keeper of the lamp", False)),
        ("灯由[Search(看守人", "stop", Segment("灯由", "看守人", False)),
        ("It is [Search(keeper (of the lamp)", "stop", Segment("It is", "keeper (of the lamp)", False)),
        # malformed: cut off, empty, over a line, with another call in it
        ("It is [Search(keeper of", "length", Segment("It is", "", False)),
        ("It is [Search(", "stop", Segment("It is", "", False)),
        ("It is [Search(  ", "stop", Segment("It is", "", False)),
        ("It is [Search(keeper\nof", "stop", Segment("It is", "", False)),
        ("It is [Search(a [Search(b", "stop", Segment("It is", "", False)),
        ("It is [Search(a] and (b", "stop", Segment("It is", "", False)),
        # no calls
        ("Search(keeper", "stop", Segment("Search(keeper", None, True)),
        ("[ Search(keeper", "length", Segment("[ Search(keeper", None, False)),
        ("As in [f(x", "stop", Segment("As in [f(x)]", None, False)),
        ("See [1] (or not", "stop", Segment("See [1] (or not", None, True)),
    ],
)
def test_what_stays_and_what_is_asked(text, finish, segment):
    assert segment_of(Generation(text, finish=finish)) == segment
