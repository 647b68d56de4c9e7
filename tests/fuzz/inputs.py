"""Inputs: bytes that are valid, nearly valid or anything, each made from the number that repeats it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

Make = Callable[[Random], bytes]

# What readers of text, numbers and lines stumble over.
PIECES: list[bytes] = [
    *(b"", b"\x00", b"\r\n", b"\n", b"\r", b"\t", b" ", b"\\", b'"', b"'", b"\x1b[2J", b"\x9b", b"\x7f", b"\xff\xfe"),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", "\u202e".encode(), "\u2028".encode()),
    *(b"\\ud800", b"\\u0000", b"\\u202e", b"null", b"true", b"NaN", b"Infinity", b"-0", b"1e999", b"-1e-999", b"1.0"),
    *(b"9" * 18, b"9" * 19, b"9" * 20, b"-9223372036854775809", b"18446744073709551616", b"1" * 5000, b"0" * 30),
    *(b"[", b"]", b"{", b"}", b"[[[[", b"{}", b"[]", b",", b":", b"=", b"#", b"%", b"%s", b"{0}", b"${X}", b"$${"),
    *(b"../", b"/", b"..", b"~", b"*", b"?", b"--", b"-", b"@", b"&", b";", b"|", b"$(x)", b"`x`", b"\xf0\x9f\x92\xa9"),
]


def any_bytes(random: Random, most: int = 200) -> bytes:
    """Return random bytes: seldom many."""
    return random.randbytes(int(most ** random.random()))


def mutated(random: Random, raw: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return `raw` with one to six changes; `others` are valid inputs whose parts may be put in."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        raw = random.choice(_CHANGES)(random, raw, others)
    return raw


def choose(random: Random, valid: Make, others: Sequence[bytes] = ()) -> bytes:
    """Return a valid input, a mutated one or any bytes."""
    kind = random.random()
    if kind < 0.3:
        return valid(random)
    if kind < 0.9:
        return mutated(random, valid(random), others)
    return any_bytes(random)


def _span(random: Random, raw: bytes) -> tuple[int, int]:
    start = random.randint(0, len(raw))
    return start, min(len(raw), start + int(20 ** random.random()))


def _flip(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    at = random.randint(0, len(raw))
    return raw[:at] + bytes(byte ^ 1 << random.randrange(8) for byte in raw[at : at + 1]) + raw[at + 1 :]


def _replace(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(random, raw)
    return raw[:start] + random.choice(PIECES) + raw[end:]


def _insert(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    at = random.randint(0, len(raw))
    return raw[:at] + random.choice(PIECES) * random.choice((1, 1, 1, 3)) + raw[at:]


def _delete(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(random, raw)
    return raw[:start] + raw[end:]


def _repeat(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(random, raw)
    return raw[:end] + raw[start:end] * random.choice((1, 2, 50)) + raw[end:]


def _cut(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    return raw[: random.randint(0, len(raw))]


def _swap(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    a, b = sorted((random.randint(0, len(raw)), random.randint(0, len(raw))))
    return raw[b:] + raw[a:b] + raw[:a]


def _splice(random: Random, raw: bytes, others: Sequence[bytes]) -> bytes:
    if not others:
        return _insert(random, raw, others)
    other = random.choice(others)
    start, end = sorted((random.randint(0, len(other)), random.randint(0, len(other))))
    at = random.randint(0, len(raw))
    return raw[:at] + other[start:end] + raw[at:]


_CHANGES = (_flip, _replace, _insert, _delete, _repeat, _cut, _swap, _splice)


_CHARACTERS = [
    *("a", "é", "日", "😀", " ", "{", "%s", "\u2028", "\x7f"),
    *("\\n", "\\u0000", "\\u001b", "\\u202e", '\\"', "\\\\"),
]


def json_value(random: Random, depth: int = 0) -> bytes:
    """Return valid JSON of any kind; seldom deep, seldom with numbers that no machine word holds."""
    kind = random.randrange(12 if depth < 4 else 8)
    match kind:
        case 0:
            return random.choice((b"null", b"true", b"false", b"0", b"-0", b"1E5", b'""', b"{}", b"[]"))
        case 1 | 2:
            return b"%d" % random.randint(-(10**3), 10**3)
        case 3:
            return b"%d" % random.randint(-(1 << 70), 1 << 70)
        case 4:
            return repr(random.uniform(-1e9, 1e9)).encode()
        case 5:
            return b"1" + b"0" * random.choice((17, 18, 19, 63, 300, 4301))
        case 6 | 7:
            return json_text(random)
        case 8 | 9:
            return b"[" + b",".join(json_value(random, depth + 1) for _ in range(random.randrange(4))) + b"]"
        case 10:
            pairs = (json_text(random) + b":" + json_value(random, depth + 1) for _ in range(random.randrange(4)))
            return b"{" + b",".join(pairs) + b"}"
        case _:
            deep = random.choice((1, 5, 50, 254, 255, 300, 1024, 3000))
            return b"[" * deep + b"1" + b"]" * deep


def json_text(random: Random) -> bytes:
    """Return a JSON string, of characters that are printed seldom."""
    return f'"{"".join(random.choices(_CHARACTERS, k=random.randrange(6)))}"'.encode()


def id_(random: Random) -> bytes:
    """Return the id of a task or message, as JSON: seldom one that is none."""
    if random.random() < 0.08:
        return json_value(random)
    return random.choice((b"%d" % random.randint(-9, 10**9), b'"%d"' % random.randint(0, 99), json_text(random)))
