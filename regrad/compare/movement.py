"""How one score moved between two runs on the same images: distributions in a first reading, ranks in a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from regrad.metrics import counted, paired
from regrad.runs import curves
from regrad.runs.pairs import SIDES, Pairs, column
from regrad.runs.scored import Bools, Floats, Ints, floats
from regrad.runs.sift import Best
from regrad.runs.tally import Judged, Tally, align_counts, join_tallies, kinds_of

GRID = 40  # bins of the histogram of both scores, each way
MOVER = ("id", "source", "row", "label", "a.prediction", "b.prediction")

#: Of the errors of a classifier, by counts of right and wrong predictions per distinct score.
ERRORS = {"auroc": counted.auroc, "raulc": counted.raulc, "aurc": counted.aurc}


@dataclass
class Separation:
    """``auroc`` of either run, and how far off merged cells can make it."""

    auroc: tuple[float, float]
    error: float


@dataclass
class Movement:
    """The first reading: what the pairs' values of ``score`` amount to.

    Attributes:
        sides: the values of either run, by whether that run's prediction is right.
        differences: b - a.
        left_out: pairs without a finite value in both runs.
    """

    score: str
    sides: tuple[Judged, Judged] = field(default_factory=lambda: (Judged(), Judged()))
    differences: Tally = field(default_factory=Tally)
    total: float = 0.0
    left_out: int = 0

    @classmethod
    def of(cls, pairs: Pairs, score: str) -> Movement:
        """The movement of ``score`` over all of ``pairs``, which are read once."""
        movement = cls(score)
        for rows in pairs.tables(["judged", *(column(side, name) for side in SIDES for name in ("right", score))]):
            values, there = both(rows, score)
            movement.left_out += int((~there).sum())
            labelled = boolean(rows, "judged")
            for side, judged, ours in zip(SIDES, movement.sides, values, strict=True):
                kinds = kinds_of(labelled, labelled & boolean(rows, column(side, "right")))
                judged.add(ours[there], kinds[there])
            moved = (values[1] - values[0])[there]
            movement.differences.add(moved)
            movement.total += float(moved.sum())
        return movement

    @property
    def pairs(self) -> int:
        """How many pairs have a value in both runs."""
        return self.differences.images

    def distribution(self, side: int) -> tuple[Floats, Ints, bool]:
        """The distinct values of run ``side`` (k,), ascending, the images of each (k,), and whether they are exact."""
        values, (images,), exact = align_counts([self.sides[side]])
        return values, images, exact

    def difference(self) -> dict[str, Any]:
        """``mean`` of b - a, and its ``median`` with the interval of :func:`regrad.metrics.paired.median_ranks`."""
        values, (images,) = join_tallies([self.differences])
        share = np.cumsum(images) / self.pairs
        ranks = np.array(paired.median_ranks(self.pairs)) - 1e-12  # a share may land a hair below a whole rank
        middle, low, high = values[np.minimum(np.searchsorted(share, ranks), values.size - 1)].tolist()
        return {"mean": {"value": self.total / self.pairs}, "median": {"value": middle, "interval": (low, high)}}

    def errors(self) -> dict[str, tuple[float, float]] | None:
        """Metric of :data:`ERRORS` -> its value in either run; None without labels."""
        counts = [judged.errors()[1:] for judged in self.sides]
        if not counts[0][0].size:
            return None
        return {name: tuple(float(metric(*kinds)) for kinds in counts) for name, metric in ERRORS.items()}  # type: ignore[misc]

    def separation(self, other: Movement) -> Separation:
        """How well either run tells the images of ``other`` apart."""
        aurocs, errors = [], []
        for ours, theirs in zip(self.sides, other.sides, strict=True):
            _, (known, unknown), exact = align_counts([ours, theirs])
            aurocs.append(float(counted.auroc(known, unknown)))
            errors.append(0.0 if exact else counted.auroc_error(known, unknown))
        return Separation((aurocs[0], aurocs[1]), max(errors))


@dataclass
class Ranks:
    """The second reading, once the distributions and the thresholds are known.

    Attributes:
        correlation: Spearman's, with ties at their mean rank; None where a run has a single value.
        flagged: pairs above the threshold in ``a``, in ``b`` and in both; None without thresholds.
        plane: ``a`` and ``b`` with ``log`` and ``edges``, and ``images``: a row for each bin of ``b``.
        moved: the rows whose rank rose most, and those whose rank fell most.
    """

    correlation: float | None
    flagged: list[int] | None
    plane: dict[str, Any]
    moved: tuple[list[dict[str, Any]], list[dict[str, Any]]]


def read_ranks(pairs: Pairs, movement: Movement, thresholds: tuple[float, float] | None, top: int) -> Ranks:
    """Read ``pairs`` again.

    Args:
        pairs: those that ``movement`` is of.
        movement: the first reading.
        thresholds: of ``a`` and of ``b``; None to flag nothing.
        top: how many rows that moved to keep, half of them each way; 0 for none.
    """
    values, images = zip(*(movement.distribution(side)[:2] for side in (0, 1)), strict=True)
    ranks = [_midranks(number) for number in images]
    spread = [float((number * (rank - 0.5) ** 2).sum()) for number, rank in zip(images, ranks, strict=True)]
    axes = [curves.edges_of(value, number, GRID) for value, number in zip(values, images, strict=True)]
    plane, product, flags = np.zeros(GRID * GRID, np.int64), 0.0, np.zeros(3, np.int64)
    risen, fallen = Best(top - top // 2), Best(top // 2)
    scores = [column(side, movement.score) for side in SIDES]
    for rows in pairs.tables([*(MOVER if top else ()), *scores]):
        pair, there = both(rows, movement.score)
        rows, pair = (
            (rows.filter(pa.array(there)), [value[there] for value in pair]) if not there.all() else (rows, pair)
        )
        rank_a, rank_b = (
            rank[np.clip(np.searchsorted(known, value, side="right") - 1, 0, known.size - 1)]
            for rank, known, value in zip(ranks, values, pair, strict=True)
        )
        product += float(((rank_a - 0.5) * (rank_b - 0.5)).sum())
        bin_a, bin_b = (
            np.clip(np.searchsorted(edges, value, side="right") - 1, 0, GRID - 1)
            for (_, edges), value in zip(axes, pair, strict=True)
        )
        plane += np.bincount(bin_b * GRID + bin_a, minlength=GRID * GRID)
        if thresholds is not None:
            above = [value > bound for value, bound in zip(pair, thresholds, strict=True)]
            flags += [above[0].sum(), above[1].sum(), (above[0] & above[1]).sum()]
        if top:
            shown = rows.rename_columns([*MOVER, "a.score", "b.score"])
            shown = shown.append_column("a.rank", pa.array(rank_a)).append_column("b.rank", pa.array(rank_b))
            risen.offer(shown, rank_a - rank_b, rank_b > rank_a)
            fallen.offer(shown, rank_b - rank_a, rank_b < rank_a)
    return Ranks(
        correlation=product / math.sqrt(spread[0] * spread[1]) if min(spread) > 0 else None,
        flagged=flags.tolist() if thresholds is not None else None,
        plane={side: {"log": log, "edges": edges.tolist()} for side, (log, edges) in zip(SIDES, axes, strict=True)}
        | {"images": plane.reshape(GRID, GRID).tolist()},
        moved=(risen.rows(), fallen.rows()),
    )


def both(rows: pa.Table, score: str) -> tuple[Sequence[Floats], Bools]:
    """(n,) values of ``score`` in either run, and (n,) where both are finite."""
    values = [floats(rows[column(side, score)]) for side in SIDES]
    return values, np.isfinite(values[0]) & np.isfinite(values[1])


def boolean(rows: pa.Table, name: str) -> Bools:
    """(n,) values of a column without a null."""
    values: Bools = rows[name].to_numpy()
    return values


def _midranks(images: Ints) -> Floats:
    """(k,) the mean rank of the images of each value, as a share of all."""
    below = np.cumsum(images) - images
    return (below + 0.5 * images) / max(int(images.sum()), 1)
