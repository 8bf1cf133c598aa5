"""What the lists have in common: text into a file of bytes, an array that grows, a number that may be none."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterator
from typing import IO, Any


@contextlib.contextmanager
def text_into(file: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    """``file`` to write UTF-8 to, which stays open at the end."""
    text = io.TextIOWrapper(file, "utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()


def one_line(value: Any) -> str:
    """``value`` as JSON on one line, in the letters it has."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def indented(value: Any) -> bytes:
    """``value`` as a JSON file that people read."""
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


@contextlib.contextmanager
def growing(text: IO[str], begin: str, end: str) -> Iterator[Callable[[str], None]]:
    """Writes ``begin``, each member that is given on a line of its own, commas between, and ``end``."""
    separator = "\n"
    text.write(begin)

    def add(member: str) -> None:
        nonlocal separator
        text.write(f"{separator}{member}")
        separator = ",\n"

    yield add
    text.write(f"\n{end}")


def finite_or_none(value: float, digits: int = 9) -> float | None:
    """``value`` to so many digits; None where no JSON has it.

    >>> finite_or_none(0.30000001192092896, 6), finite_or_none(float("nan"))
    (0.3, None)
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
