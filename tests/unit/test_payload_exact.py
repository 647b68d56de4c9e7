"""The two readers of JSON, with and without a long number, agree; numbers have a bound."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.long_integers import MAX_DIGITS, integer_text
from redis_worker.vocabulary.payload import (
    MissingTask,
    dumps,
    has_long_number,
    loads,
    read_object,
    read_task,
    success,
)

LONG = 1234567890123456789012
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)
ODD = ("\ufeff", "\x00", "\x1f", "\x7f", "\n", " ", "\u2028")
PIECES = r"""{ } [ ] , : " \ \" \\ \u \ud800 \udc00 \ud83d\ude00 \u0000 true null NaN -Infinity a "a" "a":1 é
    0 -0 01 - +1 1. .5 1e5 1E+5 1e400 0.1 123456789012345678 -9223372036854775808"""
pieces = st.sampled_from(PIECES.split()) | st.sampled_from(ODD)
texts = st.one_of(
    st.binary(),
    st.lists(pieces).map(lambda found: "".join(found).encode()),
    json_values.map(lambda value: json.dumps(value).encode()),
    json_values.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")),
    st.tuples(json_values, st.sampled_from(["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le"])).map(
        lambda pair: json.dumps(pair[0]).encode(pair[1])
    ),
)


def read(reader: Any, raw: bytes) -> Any:
    """Return the value as a text that tells 1 from 1.0 and -0.0 from 0.0, or None where `raw` is refused."""
    try:
        return repr(reader(raw))
    except ValueError:
        return None


@given(texts, st.sampled_from([b"%d", b"-%d", b'"%d"', b"[%d]", b'{"%d":%d}']), st.booleans())
@example(b'{"id":"\\ud800","task":[1,2]}', b"%d", True)
@example(b'{"a":1,"b":2,"a":3}', b"%d", False)
@example(b"[" * 1023 + b"]" * 1023, b"%d", True)
@example(b"[" * 1024 + b"]" * 1024, b"%d", False)
@example(b"01", b"%d", True)
@example(b"\xef\xbb\xbf1", b"%d", True)
def test_a_long_number_beside_it_changes_nothing_of_what_is_read(raw: bytes, number: bytes, first: bool) -> None:
    filled = number.replace(b"%d", b"%d" % LONG)
    padded = b"[%b,%b]" % ((filled, raw) if first else (raw, filled))
    alone = b"[%b,%b]" % ((b"7", raw) if first else (raw, b"7"))
    try:
        expected = orjson.loads(alone)
    except ValueError:
        with pytest.raises(ValueError):
            loads(padded)
        return
    expected[0 if first else -1] = json.loads(filled)
    found = loads(padded)
    if not has_long_number([raw]):  # orjson reads one as a float
        assert repr(found) == repr(expected)


@given(texts)
def test_what_one_reader_refuses_the_other_one_refuses(raw: bytes) -> None:
    """Long numbers in the midst of anything, in strings and out of them, as keys, glued to other characters."""
    padded = raw.replace(b"7", b"%d" % LONG).replace(b"a", b'a%d"' % LONG)
    short = raw.replace(b"7", b"123456789012345678").replace(b"a", b'a123456789012345678"')
    assert (read(loads, padded) is None) == (read(orjson.loads, short) is None)


@given(json_values.filter(lambda value: "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)))
def test_numbers_are_exact_wherever_they_stand(value: Any) -> None:
    whole = {
        "n": [LONG, -LONG, {"é": [10**18, -(10**18), 10**18 - 1, 2**63, 2**64]}],
        str(LONG): value,
        "s": f'\\"{LONG}',
    }
    for ascii_only in (True, False):
        raw = json.dumps(whole, ensure_ascii=ascii_only).encode(errors="surrogatepass")
        if read(orjson.loads, json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")) is not None:
            assert repr(loads(raw)) == repr(json.loads(raw))


POWERS = (10**17, 10**18, 2**63, 10**19, 2**64, 10**20)
EDGES = [sign * power + by for power in POWERS for sign in (1, -1) for by in (-1, 0, 1)]


@pytest.mark.parametrize("number", EDGES)
def test_numbers_at_the_edges_of_what_64_bits_hold_are_exact(number: int) -> None:
    large = f'{{"text":"{"x" * 1000}","a":[1.5,%d]}}'
    for form in ("%d", "[%d]", "[1.5,%d,2]", '{"a":%d}', large):
        raw = (form % number).encode()
        assert repr(loads(raw)) == repr(json.loads(raw))
        assert dumps(loads(raw)) == raw
    plain = not has_long_number([b"%d" % number])
    assert read_task(b'{"id":%d,"task":%d}' % (number, number), plain)[1] == number
    assert read_task(b'{"id":%d,"task":%d}' % (number, number), plain)[0] == str(number)
    assert read_task(b'{"id":"t","task":%b}' % (large % number).encode())[1] == json.loads(large % number)


@pytest.mark.parametrize("member", ["id", "task", "other", "key", "nested"])
@pytest.mark.parametrize("pad", ["1", str(LONG), f'"{LONG}"'])
def test_a_payload_with_half_a_pair_is_unreadable_with_long_digits_and_without(member: str, pad: str) -> None:
    members = {"id": '"t"', "task": "[1,2]", "other": '"x"', "nested": "[[1]]"}
    if member != "key":
        members[member] = '[["\\ud800"]]' if member == "nested" else '"\\ud800"'
    key = "\\udfff" if member == "key" else "k"
    inside = ",".join(f'"{name}":{value}' for name, value in members.items())
    raw = f'{{{inside},"{key}":0,"pad":{pad}}}'.encode()
    with pytest.raises(Unreadable):
        read_task(raw)
    with pytest.raises(Unreadable):
        read_object(raw)


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, {"a": "\udfff"}, [["\ud800"]], {"a": {"b\udc00": [1]}}])
@pytest.mark.parametrize("beside", [0, LONG])
def test_half_a_pair_in_what_a_processor_returns_is_refused(value: Any, beside: int) -> None:
    for whole in (value, [value, beside], {"a": value, "b": beside}, (beside, [value])):
        with pytest.raises(ValueError, match="JSON"):
            success(whole)


@pytest.mark.parametrize(
    "form", ["%s", "-%s", "[1,%s]", '{"a":[%s]}', "0.%s", "%s.5", "1e-%s", "%se5", "-%s.%s", "0.%se5"]
)
def test_a_number_of_too_many_digits_is_refused_before_it_is_parsed(form: str) -> None:
    raw = form.replace("%s", "7" * 10_000_000).encode()
    started = time.thread_time()
    with pytest.raises(ValueError, match=f"more than {MAX_DIGITS} digits"):
        loads(raw)
    with pytest.raises(Unreadable, match=f"more than {MAX_DIGITS} digits"):
        read_task(b'{"id":"t","task":%b}' % raw)
    assert time.thread_time() - started < 10  # one such integer took 20 s and more


def test_the_bound_is_exact_in_both_directions() -> None:
    longest = 10**MAX_DIGITS - 1
    raw = b"[%b,-%b]" % (b"9" * MAX_DIGITS, b"9" * MAX_DIGITS)
    assert loads(raw) == [longest, -longest]
    assert dumps([longest, -longest]) == raw
    assert success(longest) == b'{"status":"success","result":%b}' % (b"9" * MAX_DIGITS)
    for beyond in (longest + 1, -longest - 1, 1 << 40_000_000):
        started = time.thread_time()
        for encode in (integer_text, success, lambda number: dumps({"a": [number]})):
            with pytest.raises(ValueError, match=f"more than {MAX_DIGITS} digits"):
                encode(beyond)
        assert time.thread_time() - started < 10
    with pytest.raises(ValueError, match="digits"):
        loads(b"1" + b"0" * MAX_DIGITS)


def test_digits_in_a_string_are_no_number() -> None:
    text = "7" * 1_000_000
    assert loads(b'["%b","\\"%b",%d]' % (text.encode(), text.encode(), LONG)) == [text, '"' + text, LONG]


def test_a_long_id_is_read_digit_by_digit_and_a_longer_one_is_unreadable() -> None:
    digits = "7" * MAX_DIGITS
    assert read_task(f'{{"id":{digits},"task":null}}'.encode())[0] == digits
    with pytest.raises(MissingTask) as missing:
        read_task(f'{{"id":{digits}}}'.encode())
    assert missing.value.id == digits
    with pytest.raises(Unreadable):
        read_task(f'{{"id":{digits}0,"task":null}}'.encode())


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [900, 1000, 1023, 1025, 1_000_000])
def test_the_depth_that_is_read_does_not_depend_on_a_long_number(opening: bytes, depth: int) -> None:
    closing = b"]" if opening == b"[" else b"}"
    numbers = {number: b"%b%d%b" % (opening * depth, number, closing * depth) for number in (7, LONG)}
    started = time.thread_time()
    assert (read(_depth, numbers[7]) is None) == (read(_depth, numbers[LONG]) is None) == (depth > 1024)
    assert time.thread_time() - started < 20


def _depth(raw: bytes) -> int:
    value, depth = loads(raw), 0
    while isinstance(value, (list, dict)):
        value, depth = value[0] if isinstance(value, list) else value["a"], depth + 1
    return depth


@pytest.mark.parametrize("digits", [18, 19, 20, 40])
def test_a_long_number_is_found_at_any_place_of_a_large_text(digits: int) -> None:
    for before in range(500, 520):
        raw = b'{"a":"' + b"x" * before + b'","n":' + b"7" * digits + b',"b":"' + b"y" * 700 + b'"}'
        assert has_long_number([b"{}", raw]) == has_long_number([raw]) == (digits >= 19)
        assert loads(raw)["n"] == int("7" * digits)
