"""What a value may be: one family for flags, YAML files and callers of the library.

Each kind takes what any of these have, text or value, and gives the value, or raises :class:`WrongValue`, which names
what was meant; argparse shows its message as it is.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class WrongValue(argparse.ArgumentTypeError, ValueError):
    """A value that is not of its kind."""


@dataclass(frozen=True)
class ValueKind:
    """One kind of value.

    Attributes:
        text: what it is, in words.
        take: gives the value, or raises ValueError, TypeError or OverflowError.
        metavar: what stands for it in ``--help``; None: the option's name.
        choices: the values there are, where they can be told.
    """

    text: str
    take: Callable[[Any], Any]
    metavar: str | None = None
    choices: tuple[str, ...] = ()

    def __call__(self, value: Any) -> Any:
        """The value.

        Raises:
            WrongValue: it is none of this kind.
        """
        try:
            return self.take(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise WrongValue(f"{value!r} is not {self.text}") from error


def whole_number(least: int | None = None, most: int | None = None) -> ValueKind:
    """A whole number, at least ``least`` and at most ``most``.

    >>> whole_number(1)("12"), whole_number()(-3), whole_number(0, 9).text
    (12, -3, 'a whole number of at least 0 and at most 9')
    """
    bounds = [f"{word} {bound}" for word, bound in (("at least", least), ("at most", most)) if bound is not None]

    def take(value: Any) -> int:
        if isinstance(value, float | bool):
            raise ValueError
        number = int(value)
        if (least is not None and number < least) or (most is not None and number > most):
            raise ValueError
        return number

    return ValueKind(" of ".join(["a whole number", *([" and ".join(bounds)] if bounds else [])]), take, "N")


def number(least: float | None = None, above: float | None = None, below: float | None = None) -> ValueKind:
    """A number within these bounds; ``inf`` is one where nothing bounds it from above.

    >>> number(least=0)("1e-3"), number(least=0, below=1).text
    (0.001, 'a number of at least 0 and below 1')
    """
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("of at least", least), ("above", above), ("below", below))
        if bound is not None
    ]

    def take(value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError
        read = float(value)
        holds = [
            not math.isnan(read),
            least is None or read >= least,
            above is None or read > above,
            below is None or read < below,
        ]
        if not all(holds):
            raise ValueError
        return read

    return ValueKind(" ".join(["a number", " and ".join(bounds)]).strip(), take, "X")


def finite(least: float) -> ValueKind:
    """A number of at least ``least`` that is not infinite."""
    return ValueKind(f"a finite number of at least {least:g}", number(least=least, below=math.inf).take, "X")


def one_of(*choices: str) -> ValueKind:
    """One of these words."""

    def take(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return ValueKind(f"one of {', '.join(choices)}", take, "|".join(choices), choices)


def _names(value: Any) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    return [str(part).strip() for part in parts if str(part).strip()]


def _numbers(value: Any) -> float | list[float]:
    parts = [float(part) for part in (value.split(",") if isinstance(value, str) else _as_list(value))]
    return parts[0] if len(parts) == 1 else parts


def _size(value: Any) -> int | list[int]:
    sides = [
        AT_LEAST_1.take(part) for part in (value.lower().split("x") if isinstance(value, str) else _as_list(value))
    ]
    if len(sides) > 2:
        raise ValueError
    return sides[0] if len(sides) == 1 else sides


def _memory(value: Any) -> int:
    match = re.fullmatch(r"([\d.]+)\s*([kmgt]?)(i?)b?", str(value).strip().lower())
    if match is None:
        raise ValueError
    power = " kmgt".index(match[2] or " ")
    return int(AT_LEAST_1.take(int(float(match[1]) * (1024 if match[3] else 1000) ** power)))


def _allowance(value: Any) -> str:
    text = str(value).strip()
    if text.endswith("%"):
        if not 0 <= float(text[:-1]) <= 100:
            raise ValueError
    elif int(text) < 0:
        raise ValueError
    return text


def _temperature(value: Any) -> float | str:
    return value if isinstance(value, str) and value.endswith(".json") else float(POSITIVE.take(value))


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


TEXT = ValueKind("a text", str)
SWITCH = ValueKind("true or false", _switch)
AT_LEAST_0, AT_LEAST_1 = whole_number(0), whole_number(1)
POSITIVE = number(above=0)
BETWEEN = number(above=0, below=1)
#: ``a,b``, or a list, without blanks.
NAMES = ValueKind("names separated by commas", _names, "NAMES")
NUMBERS = ValueKind("one number, or several separated by commas", _numbers, "X[,X,X]")
SIZE = ValueKind("a whole number of at least 1, or two as HEIGHTxWIDTH", _size, "PIXELS")
#: In bytes; with k, M, G, T (of 1000) or Ki, Mi, Gi, Ti (of 1024), with or without a B.
MEMORY = ValueKind("a number of bytes, or one with a unit, such as 4GiB or 500MB", _memory, "SIZE")
#: A number, or as text the place of a file of `regrad calibrate`.
TEMPERATURE = ValueKind("a number above 0, or a .json file of regrad calibrate", _temperature, "T|FILE")
#: A count, or a share such as ``1%``, as text: see :func:`exceeds`.
ALLOWANCE = ValueKind("a count, or a share such as 1%", _allowance, "N|N%")
#: One text or several.
TEXTS = ValueKind("one text or several", lambda value: [str(item) for item in _as_list(value)])


def exceeds(quarantined: int, rows: int, limit: str) -> bool:
    """Whether ``quarantined`` of ``rows`` are more than ``limit``, an :data:`ALLOWANCE`, allows.

    >>> exceeds(1, 100, "1%"), exceeds(2, 100, "1%"), exceeds(1, 100, "0")
    (False, True, True)
    """
    allowed = rows * float(limit[:-1]) / 100 if limit.endswith("%") else int(limit)
    return quarantined > allowed
