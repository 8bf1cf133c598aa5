"""Numbers, names and times as people read them, the same on pages and in a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence

DASH = "–"


def percent(share: float) -> str:
    """``share`` with one decimal, never rounded up to 100 % or down to 0 %.

    >>> percent(0.12345), percent(0.99999), percent(1.0), percent(0.0001)
    ('12.3 %', '> 99.9 %', '100 %', '< 0.1 %')
    """
    for bound, text in ((0.0, "0 %"), (1.0, "100 %")):
        if share == bound:
            return text
    if share < 0.0005:
        return "< 0.1 %"
    if share >= 0.9995:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def p_value(p: float) -> str:
    """A p-value in words.

    >>> p_value(0.04321), p_value(1e-9)
    ('p = 0.043', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def count(number: int, noun: str) -> str:
    """A number with its noun, singular or plural.

    >>> count(1, "image"), count(12345, "image")
    ('1 image', '12,345 images')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def class_name(index: int | None, names: Sequence[str] | None) -> str:
    """The name of class ``index``, or its number where names are not known or do not reach that far.

    >>> class_name(1, ["cat", "dog"]), class_name(7, ["cat", "dog"]), class_name(None, None)
    ('dog', '7', '–')
    """
    if index is None or index < 0:
        return DASH
    return names[index] if names and index < len(names) else str(index)


def file_name(uri: str) -> str:
    """The last part of ``uri``.

    >>> file_name("s3://bucket/shards/0001.tar"), file_name("folder/")
    ('0001.tar', 'folder')
    """
    return uri.rstrip("/").rsplit("/", 1)[-1]


class Laps:
    """The seconds of the steps of a work that began at ``begin``, in seconds since 1970.

    >>> laps = Laps(begin=time.time() - 2)
    >>> laps.end("imports")
    >>> str(laps)
    'imports 2.0 s'
    """

    def __init__(self, begin: float):
        self._last = begin
        self.seconds: dict[str, float] = {}

    def end(self, step: str) -> None:
        """The step is done now; one that is done again adds to it."""
        now = time.time()
        self.seconds[step] = self.seconds.get(step, 0.0) + now - self._last
        self._last = now

    def __str__(self) -> str:
        return ", ".join(f"{step} {seconds:.1f} s" for step, seconds in self.seconds.items())


def duration(seconds: float) -> str:
    """``seconds`` for people.

    >>> duration(5), duration(3725)
    ('5 s', '1 h 02 min')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def now() -> str:
    """The time in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of as many cells each as lines whose columns begin below each other.

    >>> aligned([["", "AUROC"], ["entropy", "97.7"]])
    ['         AUROC', 'entropy  97.7']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
