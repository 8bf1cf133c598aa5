"""The rows that a contender left on disk, against the images there were."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet


@dataclass(frozen=True)
class ImageCounts:
    """What became of the images.

    Attributes:
        scored: images with one row, which has a score.
        told: images with one row, which has none: it is known that they failed.
        doubled: images with several rows.
        lost: images without a row.
        foreign: rows of no image.
        unreadable: files that are no Parquet.
        last: when the last file was written, seconds since the epoch; None where there is none.
    """

    scored: int
    told: int
    doubled: int
    lost: int
    foreign: int
    unreadable: int
    last: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def count_rows(folders: Sequence[Path], score: str, names: Sequence[str]) -> ImageCounts:
    """Count the rows in ``folders``, each known by the last part of its id, against the images called ``names``."""
    paths = [path for folder in folders for path in sorted(folder.glob("*.parquet"))]
    rows: Counter[str] = Counter()
    with_score: set[str] = set()
    unreadable = 0
    for path in paths:
        try:
            some = pa.parquet.read_table(path)
        except (OSError, pa.ArrowException):
            unreadable += 1
            continue
        for name, value in _values(some, score):
            rows[name] += 1
            with_score |= {name} if value is not None and math.isfinite(value) else set()
    once = [name for name in names if rows[name] == 1]
    return ImageCounts(
        scored=sum(name in with_score for name in once),
        told=sum(name not in with_score for name in once),
        doubled=sum(rows[name] > 1 for name in names),
        lost=sum(rows[name] == 0 for name in names),
        foreign=sum(rows[name] for name in rows.keys() - set(names)),
        unreadable=unreadable,
        last=max((path.stat().st_mtime for path in paths), default=None),
    )


def scores_of(folders: Sequence[Path], score: str) -> dict[str, float]:
    """The score of every image that has one, by the last part of its id."""
    tables = [pa.parquet.read_table(path) for folder in folders for path in sorted(folder.glob("*.parquet"))]
    return {name: value for table in tables for name, value in _values(table, score) if value is not None}


def _values(rows: pa.Table, score: str) -> Iterator[tuple[str, float | None]]:
    values = rows[score].to_pylist() if score in rows.column_names else [None] * rows.num_rows
    names = (PurePosixPath(each).name for each in rows["id"].to_pylist())
    return zip(names, values, strict=True)
