"""Clusters of duplicates as one HTML page: those that are least alike, where a threshold shows, and the largest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from regrad import storage
from regrad.formatting import count, file_name
from regrad.pages import thumbnails
from regrad.pages.markup import fill, flatten
from regrad.pages.thumbnails import Fetch, Thumbnail
from regrad.runs.scored import Run

MOST_IMAGES = 8  # of a cluster


@dataclass(frozen=True)
class ShownCluster:
    """One cluster of a sheet: how many images it has, and the first of them as rows of ``duplicates.parquet``."""

    images: int
    rows: list[dict[str, Any]]

    @property
    def weakest(self) -> float:
        """The similarity of the image that is least like another of those shown."""
        return min(row["similarity"] for row in self.rows)


def choose_clusters(rows: pa.Table, most: int) -> dict[str, list[ShownCluster]]:
    """Up to ``most`` clusters of each kind of sheet, by its title, of rows that a cluster has together."""
    if not len(rows) or not most:
        return {}
    numbers = rows["cluster"].to_numpy()
    begins = np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])
    sizes = np.diff(np.r_[begins, len(numbers)])
    weakest = np.minimum.reduceat(rows["similarity"].to_numpy(), begins)
    orders = {
        "The least alike": np.argsort(weakest, kind="stable"),
        "The largest": np.argsort(-sizes, kind="stable"),
    }
    return {
        title: [
            ShownCluster(int(sizes[place]), rows.slice(begins[place], min(sizes[place], MOST_IMAGES)).to_pylist())
            for place in order[:most]
        ]
        for title, order in orders.items()
    }


def picture_sheet(
    numbers: Mapping[str, Any],
    headline: Sequence[str],
    sheets: Mapping[str, Sequence[ShownCluster]],
    runs: Mapping[str, tuple[Run, Fetch]],
    seconds: float = thumbnails.SECONDS,
) -> str:
    """The page; everything that came from data is escaped.

    Args:
        headline: the first line is its title.
        runs: by the name that rows have for each, and what reads images of it back.
        seconds: for fetching pictures.
    """
    shown = [row for clusters in sheets.values() for cluster in clusters for row in cluster.rows]
    wanted: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for row in shown:
        wanted[row["run"]].append(row)
    fetch = {name: reads for name, (_, reads) in runs.items()}
    collected = thumbnails.collect(wanted, fetch, thumbnails.limit(len(shown)), seconds)
    pictures = {name: iter(some) for name, some in collected.items()}
    cards = {
        title: [(cluster, [_card(row, next(pictures[row["run"]])) for row in cluster.rows]) for cluster in clusters]
        for title, clusters in sheets.items()
    }
    return fill(
        __package__,
        "sheet",
        headline=list(headline),
        sheets=cards,
        count=count,
        data={},
        provenance=[
            ("duplicates.json", flatten(dict(numbers))),
            *((name, flatten(run.info)) for name, (run, _) in runs.items()),
        ],
    )


def _card(row: dict[str, Any], picture: Thumbnail) -> dict[str, Any]:
    masked: dict[str, Any] = storage.published(row)
    return {"row": masked, "picture": picture, "file": file_name(masked["source"])}
