"""Rows whose images look alike to the network: pairs of embeddings by their cosine, whitened or plain.

A row is compared with those of its nearest cell, and with all that have that cell among their nearest few. Sqrt(n)
cells make that n sqrt(n) comparisons, and a pair may be missed; up to some tens of thousands of rows there is one cell,
and none is. Cells that lie together are a group, which is one task: any number of rows is compared in a bounded memory,
on as many machines as there are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from regrad import storage
from regrad.duplicates.cells import LEAST, NEAREST, SAMPLE, Cells, Halves, fit_cells
from regrad.duplicates.clusters import Limits, Links, Similarities
from regrad.duplicates.gathered import Gathered
from regrad.duplicates.hashes import differing_bits
from regrad.duplicates.means import Means, Task
from regrad.duplicates.spread import draw_sample, entry_type, lay_down
from regrad.errors import UsageError
from regrad.runs.scored import Bools, Ints

#: Two may look less alike, so many times the bits, if their embeddings have at least a cosine: docs/duplicates.md has
#: how many of those are one picture.
ALSO = ((2, LEAST), (3, 0.8))
MOST_LINKS = 20_000_000
_BLOCK, _OTHERS = 1024, 8192  # rows at once, and rows they are compared with
_THREADS = 8  # that read ranges

Entries = np.ndarray[Any, Any]


def near_links(
    rows: Gathered, among: Ints, looking: Ints, limits: Limits, means: Means
) -> tuple[list[Links], str | None]:
    """Of the rows ``among``: pairs whose pictures look alike, ``looking`` and those that differ in more bits and have
    embeddings alike by :data:`ALSO`; and pairs whose embeddings are as alike as the limits ask. Then, by which cosine.

    Memory: a sample of :data:`SAMPLE` embeddings, and what a task has: some hundred megabytes. Those of the rows in
    ``looking`` lie in a temporary file.

    Args:
        among: numbers of the rows to compare, ascending.
        looking: (2, m) numbers of pairs.

    Raises:
        UsageError: more than :data:`MOST_LINKS` pairs are that alike.
        RegradError: the storage refused or failed.
    """
    if not len(among):
        return [Links.none(), Links.none()], limits.cosine
    pieces = [task for task in (piece.task(among) for piece in rows.pieces) if len(task["rows"])]
    with means.scratch() as folder, tempfile.TemporaryDirectory(prefix="regrad-near-") as local:
        cells = fit_cells(_sample(among, rows, means), len(among), limits.cosine)
        cells.save(where := storage.join(folder, "cells.npz"))
        shown = _Shown(np.unique(looking), pieces[0]["width"], os.path.join(local, "shown"))
        laying = (
            {**task, "cells": where, "piece": storage.join(folder, f"piece-{number}"), "shown": shown.of(task["rows"])}
            for number, task in enumerate(pieces)
        )
        written = []
        for answer in means.each(lay_down, laying):
            shown.put(answer["shown"], answer["vectors"])
            written.append((answer["piece"], answer["ends"]))
        alike, near = _compared(cells, sorted(written), limits, means)
        return [Links.joined([shown.links(looking), alike]), near], cells.cosine


def _sample(among: Ints, rows: Gathered, means: Means) -> Halves:
    wanted = among[:: 1 + len(among) // SAMPLE]
    tasks = (piece.task(wanted) for piece in rows.pieces)
    drawn = means.each(draw_sample, (task for task in tasks if len(task["rows"])))
    by_first = {int(answer["rows"][0]): answer["vectors"] for answer in drawn}
    return np.concatenate([by_first[first] for first in sorted(by_first)])  # in one order, whatever came first


class _Shown:
    """The directions of rows whose pictures look like others', in a file."""

    def __init__(self, rows: Ints, width: int, path: str):
        self.rows = rows
        shape = (len(rows), width)
        self.vectors: Halves = np.memmap(path, np.float16, "w+", shape=shape) if len(rows) else np.empty(shape, "f2")

    def of(self, rows: Ints) -> Ints:
        """Those of ``rows``, a range of all there are, that are wanted."""
        low, high = np.searchsorted(self.rows, [rows[0], rows[-1] + 1])
        return self.rows[low:high]

    def put(self, rows: Ints, vectors: Halves) -> None:
        """``vectors`` of some of them."""
        self.vectors[np.searchsorted(self.rows, rows)] = vectors

    def links(self, pairs: Ints) -> Links:
        """``pairs`` of them, with their cosines."""
        parts = []
        for start in range(0, pairs.shape[1], _OTHERS):
            first, second = pairs[:, start : start + _OTHERS]
            own, other = (self.vectors[np.searchsorted(self.rows, end)].astype(np.float32) for end in (first, second))
            parts.append(Links(first, second, np.clip((own * other).sum(1), 0, 1)))
        return Links.joined(parts)


def _compared(cells: Cells, written: Sequence[tuple[str, Ints]], limits: Limits, means: Means) -> tuple[Links, Links]:
    """The pairs of all groups: whose pictures look alike too, and whose embeddings are alike."""
    alike, near, count = [], [], 0
    for answer in means.each(compare_group, _tasks(cells, written, limits)):
        alike.append(answer["alike"])
        near.append(answer["near"])
        count += len(answer["alike"].first) + len(answer["near"].first)
        _refuse_more(count, limits)
    return Links.joined(alike), Links.joined(near)


def _tasks(cells: Cells, written: Sequence[tuple[str, Ints]], limits: Limits) -> Iterator[Task]:
    starts = [np.r_[0, ends[:-1]] for _, ends in written]
    kind = entry_type(cells.centres.shape[1], min(NEAREST, len(cells.centres)))
    for group in range(int(cells.groups.max()) + 1):
        ranges = [
            (piece, int(start[group]), int(ends[group])) for (piece, ends), start in zip(written, starts, strict=True)
        ]
        members = np.flatnonzero(cells.groups == group)
        yield {"source": written[0][0], "ranges": ranges, "members": members, "type": kind, "limits": limits}


def compare_group(task: Task) -> Task:
    """``alike, near``: links of rows of which one is nearest to a cell of the group.

    Args:
        task: ``ranges``: which entries, of this ``type``, of which files; ``members``: the cells of the group;
            ``limits``.

    Raises:
        UsageError: more than :data:`MOST_LINKS`.
        RegradError: the storage refused or failed.
    """
    limits: Limits = task["limits"]
    least = min(limits.threshold, LEAST if limits.distance else 1)
    alike, near, count = [Links.none()], [Links.none()], 0
    with tempfile.TemporaryDirectory(prefix="regrad-near-") as folder:
        entries = _entries(task, os.path.join(folder, "entries"))
        cells, hashes, rows = (np.array(entries[name]) for name in ("cells", "hash", "row"))
        for first, second, cosines in _in_cells(entries["vector"], cells, task["members"], least):
            links = Links(np.minimum(rows[first], rows[second]), np.maximum(rows[first], rows[second]), cosines)
            alike.append(links.those(_also(cosines, differing_bits(hashes[first], hashes[second]), limits)))
            near.append(links.those(cosines >= limits.threshold))
            count += len(alike[-1].first) + len(near[-1].first)
            _refuse_more(count, limits)
    return {"alike": Links.joined(alike), "near": Links.joined(near)}


def _also(cosines: Similarities, bits: Ints, limits: Limits) -> Bools:
    """(m,) which pairs look alike, by :data:`ALSO`."""
    rules = [(cosines >= least) & (bits <= times * limits.distance) for times, least in ALSO if limits.distance]
    return np.logical_or.reduce([np.zeros(len(bits), bool), *rules])


def _entries(task: Task, path: str) -> Entries:
    """All entries of the ranges, in a file."""
    size = task["type"].itemsize
    ranges = [(piece, start, stop) for piece, start, stop in task["ranges"] if start < stop]
    with open(path, "wb") as sink, ThreadPoolExecutor(_THREADS, "regrad-ranges") as pool:
        for at in range(0, len(ranges), _THREADS):  # so many in memory
            for content in pool.map(lambda some: _range(some, size), ranges[at : at + _THREADS]):
                sink.write(content)
    return np.memmap(path, task["type"], "r") if ranges else np.empty(0, task["type"])


def _range(some: tuple[str, int, int], size: int) -> bytes:
    piece, start, stop = some
    with storage.open_file(piece, read_ahead=1) as file:
        file.seek(start * size)
        content: bytes = file.read((stop - start) * size)
    return content


def _in_cells(vectors: Halves, cells: Ints, members: Ints, least: float) -> Iterator[tuple[Ints, Ints, Similarities]]:
    """Places of pairs with a cosine of at least ``least``, each once, and their cosines: (m,) each.

    A row of a cell is compared with those of it that come later, and with the rows that have it among their nearest.
    """
    for cell in members:
        there = np.flatnonzero((cells == cell).any(1))
        own = cells[there, 0] == cell
        ordered = np.concatenate([there[own], there[~own]])
        for start in range(0, int(own.sum()), _BLOCK):
            block = ordered[start : min(start + _BLOCK, int(own.sum()))]
            for at in range(start, len(ordered), _OTHERS):
                first, second, cosines = _alike(vectors, block, ordered[at : at + _OTHERS], least)
                after = start + first < at + second
                first, second, cosines = block[first[after]], ordered[at + second[after]], cosines[after]
                # The other's own cell may be near to this one too: there the pair is seen again.
                both = (cells[first] == cells[second, :1]).any(1) & (cells[second, 0] != cell)
                once = ~both | (first < second)
                yield first[once], second[once], cosines[once]


def _alike(vectors: Halves, rows: Ints, others: Ints, least: float) -> tuple[Ints, Ints, Similarities]:
    """Places in both of the pairs, and their cosines."""
    own, theirs = (torch.from_numpy(vectors[some].astype(np.float32)) for some in (rows, others))
    cosines = own @ theirs.T
    first, second = (cosines >= least).nonzero(as_tuple=True)
    return first.numpy(), second.numpy(), cosines[first, second].clamp_max(1).numpy()


def _refuse_more(count: int, limits: Limits) -> None:
    if count > MOST_LINKS:
        raise UsageError(
            f"more than {MOST_LINKS:,} pairs of images are as alike as --threshold {limits.threshold:g} asks; raise it"
        )
