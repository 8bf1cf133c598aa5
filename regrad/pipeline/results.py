"""What comes back while units are scored: six kinds of result, and each of them as text between processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Committed:
    """A unit was committed; ``record`` is its ledger record."""

    record: dict[str, Any]


@dataclass(frozen=True)
class SourceChanged:
    """``source`` is no longer what was planned: its unit was not committed, and is to be planned again."""

    source: str


@dataclass(frozen=True)
class Measured:
    """|S - S'| / S over the first ``images`` of a run, see :meth:`regrad.Scorer.measure_error`."""

    images: int
    median_relative_error: float
    max_relative_error: float


@dataclass(frozen=True)
class Retried:
    """How often the storage was asked again since the last time this was told, by kind of fault."""

    counts: dict[str, int]


@dataclass(frozen=True)
class Spent:
    """What a worker's time went into since it last told: ``scoring``, or waiting, by what for.

    ``reading``, ``decoding``: for images; ``committing``: for units at the end; ``handing over``: for the driver.
    """

    seconds: dict[str, float]


@dataclass(frozen=True)
class Note:
    """A line to show once."""

    text: str


UnitResult = Committed | SourceChanged | Measured | Retried | Spent | Note
_KINDS: dict[str, type[UnitResult]] = {
    kind.__name__: kind for kind in (Committed, SourceChanged, Measured, Retried, Spent, Note)
}


def to_json(result: UnitResult) -> str:
    """``result`` as text, which Ray carries."""
    return json.dumps([type(result).__name__, asdict(result)])


def from_json(text: str) -> UnitResult:
    """The inverse of :func:`to_json`."""
    kind, fields = json.loads(text)
    return _KINDS[kind](**fields)
