"""Text from outside: on one line, obeyed by no terminal, and the same JSON."""

from __future__ import annotations

import json
import unicodedata

import orjson
from hypothesis import given
from hypothesis import strategies as st

from redis_worker.vocabulary.text import visible, visible_lines

ANY = st.text(st.characters() | st.sampled_from("\n\r\x1b\x9b\x00\x7f\u202e\u2066\u2028\u200b\ufeff\U000e0041\\"))
JSON = st.recursive(
    ANY | st.integers(-(2**60), 2**60) | st.none(), lambda inner: st.lists(inner) | st.dictionaries(ANY, inner)
)


@given(ANY)
def test_it_is_one_line_without_what_a_terminal_obeys(text: str) -> None:
    shown = visible(text)
    assert len((shown + "x").splitlines()) == 1
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [
        c
        for c in shown
        if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    ]
    assert visible(shown) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_ordinary_text_of_any_language_stays(text: str) -> None:
    assert visible(text) is text or visible(text) == text


@given(JSON)
def test_json_stays_the_same(value: object) -> None:
    written = json.dumps(value, ensure_ascii=True)
    assert json.loads(visible(written)) == value
    try:
        compact = orjson.dumps(value).decode()
    except TypeError:  # a half of a surrogate pair
        return
    assert json.loads(visible(compact)) == value


@given(ANY)
def test_lines_after_the_first_are_indented(text: str) -> None:
    shown = visible_lines(text)
    assert shown.count("\n") == text.count("\n")
    assert all(line.startswith("  ") for line in shown.split("\n")[1:])
