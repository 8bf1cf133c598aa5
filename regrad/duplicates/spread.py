"""Tasks that read embeddings where a run keeps them: a sample, and their directions laid down by the cells they are in.

What lies in the folder of a search: a file for each piece of its rows, with an entry for each row and each group of
cells that has one of the row's nearest, those of a group together. Whoever compares a group reads a range of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from regrad import storage, table
from regrad.duplicates.cells import Halves, directions, load_cells
from regrad.duplicates.means import Task
from regrad.ledger.rows import Rows
from regrad.runs.embeddings import vectors_of
from regrad.runs.scored import Ints

_AT_ONCE = 8192  # entries written at once


def entry_type(width: int, nearest: int) -> np.dtype[Any]:
    """Of a row in a group: its number, its hash, its nearest cells and its direction."""
    fields = [("row", "<i8"), ("hash", "<u8"), ("cells", "<i4", (nearest,)), ("vector", "<f2", (width,))]
    return np.dtype(fields)


def draw_sample(task: Task) -> Task:
    """``rows``: their numbers, ``vectors``: (m, d) their embeddings.

    Args:
        task: of :meth:`regrad.duplicates.gathered.Stretch.task`.

    Raises:
        RegradError: the storage refused or failed, or a unit was replaced meanwhile.
    """
    return {"rows": task["rows"], "vectors": _read(task)[1]}


def lay_down(task: Task) -> Task:
    """Write the entries of some rows. ``piece``: the file, ``ends``: (groups,) where the entries of each group end,
    ``shown, vectors``: numbers and directions of the rows that were asked for.

    Args:
        task: as of :func:`draw_sample`, and where the ``cells`` are, the ``piece`` to write, and numbers ``shown``.

    Raises:
        RegradError: see :func:`draw_sample`.
    """
    cells = load_cells(task["cells"])
    rows = task["rows"]
    hashes, vectors = _read(task)
    white = directions(vectors, cells.transform)
    nearest = cells.nearest(white)
    # A row is once in each group that has one of its cells: all by group, in the order of their numbers.
    groups, places = np.divmod(np.unique(cells.groups[nearest] * len(rows) + np.arange(len(rows))[:, None]), len(rows))
    with storage.writing(task["piece"], lasting=False) as file:
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            entries = np.empty(len(some), entry_type(task["width"], nearest.shape[1]))
            for name, column in {"row": rows, "hash": hashes, "cells": nearest, "vector": white}.items():
                entries[name] = column[some]
            file.write(entries.tobytes())
    ends = np.searchsorted(groups, np.arange(cells.groups.max() + 1), "right")
    shown = rows[np.isin(rows, task["shown"])]
    return {"piece": task["piece"], "ends": ends, "shown": shown, "vectors": white[np.searchsorted(rows, shown)]}


def _read(task: Task) -> tuple[Any, Halves]:
    """Hashes and embeddings of the wanted rows of a piece, in the order of their numbers."""
    rows: Ints = task["rows"]
    hashes, vectors = np.empty(len(rows), np.uint64), np.empty((len(rows), task["width"]), np.float16)
    starts = dict(zip((place.unit for place in task["places"]), _starts(task), strict=True))
    columns = ["perceptual_hash", table.EMBEDDING]
    # Units that were moved to another file since they were numbered may come in another order.
    for places, some in Rows(task["source"], "embeddings", places=task["places"]).placed(columns):
        own = np.concatenate([starts[place.unit] + np.arange(place.rows) for place in places])
        wanted = np.isin(own, rows)
        there = np.searchsorted(rows, own[wanted])
        hashes[there] = some["perceptual_hash"].to_numpy()[wanted]
        vectors[there] = vectors_of(some[table.EMBEDDING], task["width"])[wanted]
    return hashes, vectors


def _starts(task: Task) -> Ints:
    counts = [place.rows for place in task["places"]]
    return task["start"] + np.cumsum([0, *counts[:-1]])
