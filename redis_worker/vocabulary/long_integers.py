"""Integers of thousands of digits and their texts, faster than int and str convert them."""

from __future__ import annotations

import decimal
import math
from typing import Final

MAX_DIGITS: Final = 100_000
"""Longer numbers are refused, in both directions: one of 10 million digits blocks its process for seconds."""

# CPython converts integers of up to 4,300 digits quickly and refuses longer ones by default.
_QUICK_DIGITS = 2000
_QUICK_BITS = 13000
_MAX_BITS = int(MAX_DIGITS * math.log2(10)) + 1


def parse_integer(digits: str) -> int:
    """Return the integer in `digits`, of any length: pieces are converted, and joined in pairs."""
    if len(digits) <= _QUICK_DIGITS:
        return int(digits)
    if digits[0] == "-":
        return -parse_integer(digits[1:])
    pieces = [int(digits[max(0, end - _QUICK_DIGITS) : end]) for end in range(len(digits), 0, -_QUICK_DIGITS)]
    power = 10**_QUICK_DIGITS
    while len(pieces) > 1:
        pieces += [0] * (len(pieces) % 2)
        pieces = [low + high * power for low, high in zip(pieces[::2], pieces[1::2], strict=True)]
        power *= power
    return pieces[0]


def integer_text(number: int) -> str:
    """Return the decimal digits of `number`. Raises ValueError if it has more than MAX_DIGITS.

    decimal multiplies long numbers faster than int does.
    """
    if (bits := number.bit_length()) <= _QUICK_BITS:
        return str(number)
    text = _long_text(abs(number)) if bits <= _MAX_BITS else ""
    if not 0 < len(text) <= MAX_DIGITS:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return "-" + text if number < 0 else text


def _long_text(number: int) -> str:
    limits = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
    with decimal.localcontext(limits):
        return str(_to_decimal(number))


def _to_decimal(number: int) -> decimal.Decimal:
    bits = number.bit_length()
    if bits <= _QUICK_BITS:
        return decimal.Decimal(number)
    low = bits // 2
    high = number >> low
    return _to_decimal(high) * decimal.Decimal(2) ** low + _to_decimal(number & ((1 << low) - 1))
