import csv
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skimba.runtime.names import escape, unescape


@given(st.one_of(st.binary().map(os.fsdecode), st.text()))
def test_any_name_survives_as_one_line_of_utf8(name):
    text = escape(name)
    assert unescape(text) == name
    assert text.encode().decode().splitlines() in ([text], [])
    assert text.isprintable() or all(char.isprintable() or char.isspace() or ord(char) > 0x9F for char in text)


@given(st.lists(st.binary(min_size=1).map(os.fsdecode), min_size=1))
def test_names_survive_a_table(names):
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([[escape(name)] for name in names])
    lines = table.getvalue().encode().decode().splitlines()
    assert [unescape(row[0]) for row in csv.reader(lines)] == names


def test_common_names_stay_as_they_are():
    for name in ("cat/Katze 1.jpg", 'ü, "quoted".png', "日本.webp", "a'b;c%20.tif"):
        assert escape(name) == name


def test_escapes_are_what_the_words_say():
    assert escape("a\nb\r\t\\") == "a\\nb\\r\\t\\\\"
    assert escape(os.fsdecode(b"\xff\x1b[31m")) == "\\xff\\u001b[31m"


@pytest.mark.parametrize("text", ["a\\", "\\q", "\\x4g", "\\x41", "\\u12", "\\\n"])
def test_other_backslashes_are_refused(text):
    with pytest.raises(ValueError, match="is not an escaped name"):
        unescape(text)
