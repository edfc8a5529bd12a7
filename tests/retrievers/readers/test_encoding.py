from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.core.errors import ReadError
from retrievers.readers.encoding import clean, decode

ZH = "办公时间：周一至周五，上午九点到下午五点。请携带身份证，我们在一楼的大厅等你。"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_chinese(encoding):
    assert decode((ZH + "\n第二行 line 2\n").encode(encoding), "a.txt") == ZH + "\n第二行 line 2\n"


def test_chinese_beyond_gbk():
    assert decode((ZH + "㐀𠀀").encode("gb18030"), "a.txt") == ZH + "㐀𠀀"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_english(encoding):
    assert decode("Opening hours: 9 to 5\n".encode(encoding), "a.txt") == "Opening hours: 9 to 5\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("“Curly” quotes – and a dash, in a sentence that Windows wrote.", "cp1252"),
        ("Привет, как дела? Сегодня хорошая погода, и мы идём гулять в парк.", "cp1251"),
        ("今日はいい天気ですね。公園に行きましょう。", "shift_jis"),
        ("오늘은 날씨가 좋습니다. 공원에 갑시다.", "euc_kr"),
    ],
)
def test_other_encodings(text, encoding):
    assert decode(text.encode(encoding), "a.txt") == text


def test_mixed_encodings_are_an_error_that_names_the_line():
    mixed = (ZH + "\n").encode() * 3 + ZH.encode("gbk")
    with pytest.raises(ReadError, match=r"^a\.txt: is UTF-8 up to line 4, .*save it as UTF-8"):
        decode(mixed, "a.txt")


def test_damaged_utf8_is_an_error_and_not_mojibake():
    with pytest.raises(ReadError, match="is UTF-8 up to line 2"):
        decode("café au lait\n".encode() + b"caf\xe9 noir\n" + "déjà vu, très naïf\n".encode(), "a.txt")


@pytest.mark.parametrize("data", [b"\x00\x01\x02\x03" * 50, b"text\0more text that is not wide\0", random.Random(0).randbytes(3000)])
def test_binary_is_an_error(data):
    with pytest.raises(ReadError, match="binary"):
        decode(data, "a.txt")


def test_a_mark_that_the_rest_contradicts_is_an_error():
    with pytest.raises(ReadError, match="begins as UTF-8-SIG but byte"):
        decode(b"\xef\xbb\xbfabc\xff", "a.txt")


@given(st.binary(max_size=300))
def test_any_bytes_give_text_or_a_read_error(data):
    try:
        text = decode(data, "a.txt")
    except ReadError:
        return
    clean(text).encode()


@given(st.text(alphabet=st.characters()))
def test_clean_text_can_always_be_stored(text):
    result = clean(text)
    result.encode()
    assert "\0" not in result
    assert "\r" not in result
    assert clean(result) == result or result.startswith("\ufeff")


def test_clean_keeps_text_as_it_is():
    assert clean("a\tb\n中文 😀\x85\u2028") == "a\tb\n中文 😀\x85\u2028"
    assert clean("\ufeffa\r\nb\rc\ud800\0") == "a\nb\nc\ufffd\ufffd"
