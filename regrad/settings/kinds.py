"""What a setting may be: each takes what a flag or a YAML file has, or raises ValueError or TypeError."""

from __future__ import annotations

import re
from typing import Any


def names(value: Any) -> list[str]:
    """``a,b`` or a list, as a list without blanks.

    >>> names("regrad, entropy")
    ['regrad', 'entropy']
    """
    parts = value.split(",") if isinstance(value, str) else value
    return [str(part).strip() for part in parts if str(part).strip()]


def numbers(value: Any) -> float | list[float]:
    """One number, or several separated by commas."""
    parts = [float(part) for part in (value.split(",") if isinstance(value, str) else _as_list(value))]
    return parts[0] if len(parts) == 1 else parts


def size(value: Any) -> int | list[int]:
    """``224``, or ``HEIGHTxWIDTH``.

    >>> size("224"), size("32x48")
    (224, [32, 48])
    """
    sides = [count(part) for part in (value.lower().split("x") if isinstance(value, str) else _as_list(value))]
    if len(sides) > 2:
        raise ValueError
    return sides[0] if len(sides) == 1 else sides


def count(value: Any) -> int:
    """A whole number of at least 1."""
    number = int(value)
    if number < 1 or isinstance(value, float | bool):
        raise ValueError
    return number


def whole(value: Any) -> int:
    """A whole number."""
    if isinstance(value, float | bool):
        raise ValueError
    return int(value)


def memory(value: Any) -> int:
    """Bytes, or a number with a unit.

    >>> memory("4GiB"), memory("500MB"), memory(4096)
    (4294967296, 500000000, 4096)
    """
    match = re.fullmatch(r"([\d.]+)\s*([kmgt]?)(i?)b?", str(value).strip().lower())
    if match is None:
        raise ValueError
    power = " kmgt".index(match[2] or " ")
    return count(int(float(match[1]) * (1024 if match[3] else 1000) ** power))


def share(value: Any) -> str:
    """A count, or a share such as ``1%``.

    >>> share("0.5%"), share(3)
    ('0.5%', '3')
    """
    text = str(value).strip()
    if text.endswith("%"):
        if not 0 <= float(text[:-1]) <= 100:
            raise ValueError
    elif int(text) < 0:
        raise ValueError
    return text


def exceeds(quarantined: int, rows: int, limit: str) -> bool:
    """Whether ``quarantined`` of ``rows`` are more than ``limit`` (see :func:`share`) allows.

    >>> exceeds(1, 100, "1%"), exceeds(2, 100, "1%"), exceeds(1, 100, "0")
    (False, True, True)
    """
    allowed = rows * float(limit[:-1]) / 100 if limit.endswith("%") else int(limit)
    return quarantined > allowed


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def switch(value: Any) -> bool:
    """Of a flag without a value: true or false."""
    if not isinstance(value, bool):
        raise ValueError
    return value
