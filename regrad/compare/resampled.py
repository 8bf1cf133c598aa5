"""How sure the differences between two runs are: the paired bootstrap over a sample of their pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse
import scipy.stats

from regrad.compare.movement import ERRORS, boolean, both
from regrad.metrics import calibration, counted, paired
from regrad.metrics.bootstrap import Interval
from regrad.runs.pairs import SIDES, Pairs, column
from regrad.runs.scored import Floats, floats

Deviations = Mapping[str, Interval | None]


@dataclass
class PairSample:
    """A sample of pairs, in memory.

    Attributes:
        rows: the pairs.
        images: how many pairs it stands for.
    """

    rows: pa.Table
    images: int

    @classmethod
    def of(cls, pairs: Pairs, size: int = paired.SAMPLE) -> PairSample:
        """At most ``size`` of ``pairs``."""
        names = ("right", "confidence", "nll", *pairs.scores)
        return cls(
            pairs.sample(["judged", *(column(side, name) for side in SIDES for name in names)], size), pairs.paired
        )


def of_labels(sample: PairSample) -> Deviations:
    """How far the differences in ``accuracy``, ``nll`` and ``ece`` may be off."""
    return _deviations(_Labels(sample.rows), sample)


def of_score(sample: PairSample, score: str, thresholds: tuple[float, float] | None) -> Deviations:
    """How far the metrics that need one score alone may be off, by the keys of :class:`_Score`."""
    return _deviations(_Score(sample.rows, score, thresholds), sample)


def of_separation(known: PairSample, unknown: PairSample, score: str) -> Interval | None:
    """How far the difference between the AUROCs of the two runs may be off."""
    counters = [_separation(known.rows, unknown.rows, score, side) for side in (0, 1)]

    def statistic(*weights: Floats) -> dict[str, Floats]:
        a, b = (counted.auroc(*paired.counts(np.concatenate(weights, axis=1), counter)) for counter in counters)
        return {"auroc": b - a}

    return _deviations(statistic, known, unknown)["auroc"]


def _deviations(statistic: Callable[..., dict[str, Floats]], *samples: PairSample) -> Deviations:
    with np.errstate(invalid="ignore", divide="ignore"):
        return paired.deviations(
            statistic, [len(sample.rows) for sample in samples], [sample.images for sample in samples]
        )


class _Score:
    """b - a of ``mean, flagged`` and :data:`ERRORS`, and the value of ``correlation`` and ``flagged_both``."""

    def __init__(self, rows: pa.Table, name: str, thresholds: tuple[float, float] | None):
        values, there = both(rows, name)
        a, b = (np.where(there, value, 0.0) for value in values)
        ranks = [np.where(there, _ranks(value, there), 0.0) for value in (a, b)]
        terms = [there, b - a, *ranks, *(rank**2 for rank in ranks), ranks[0] * ranks[1]]
        if thresholds is not None:
            flags = [there & (value > bound) for value, bound in zip((a, b), thresholds, strict=True)]
            terms += [flags[1].astype(float) - flags[0], flags[0] & flags[1]]
        self._terms = np.stack([np.asarray(term, float) for term in terms], axis=1)
        labelled = boolean(rows, "judged")
        self._errors = (
            [
                paired.counter(value, np.where(there & labelled, 1 - boolean(rows, column(side, "right")), -1))
                for side, value in zip(SIDES, (a, b), strict=True)
            ]
            if labelled.any()
            else []
        )

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        images, moved, *moments = (weights @ self._terms).T
        x, y, xx, yy, xy, *flags = (moment / images for moment in moments)
        differences = {"mean": moved / images, "correlation": (xy - x * y) / np.sqrt((xx - x**2) * (yy - y**2))}
        differences |= dict(zip(("flagged", "flagged_both"), flags, strict=False))
        counts = [paired.counts(weights, counter) for counter in self._errors]
        if counts:
            differences |= {key: metric(*counts[1]) - metric(*counts[0]) for key, metric in ERRORS.items()}
        return differences


class _Labels:
    """b - a of ``accuracy``, ``nll`` and ``ece`` over the pairs that both runs can judge."""

    def __init__(self, rows: pa.Table):
        labelled = boolean(rows, "judged")
        right = [labelled & boolean(rows, column(side, "right")) for side in SIDES]
        losses = [floats(rows[column(side, "nll")]) for side in SIDES]
        known = labelled & np.isfinite(losses[0]) & np.isfinite(losses[1])
        loss = np.where(known, losses[1], 0.0) - np.where(known, losses[0], 0.0)
        self._terms = np.stack([labelled, right[1].astype(float) - right[0], known, loss], axis=1).astype(float)
        self._gaps = [_gaps(rows, side, labelled, ours) for side, ours in zip(SIDES, right, strict=True)]

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        labelled, right, known, loss = (weights @ self._terms).T
        before, after = (np.abs(np.asarray(weights @ gaps)).sum(1) / labelled for gaps in self._gaps)
        return {"accuracy": right / labelled, "nll": loss / known, "ece": after - before}


def _gaps(rows: pa.Table, side: str, labelled: np.ndarray, right: np.ndarray) -> scipy.sparse.csr_array:
    """(m, bins) right minus confidence of each image, in its bin: the terms of the ECE."""
    confidence = floats(rows[column(side, "confidence")])
    places = np.flatnonzero(labelled & np.isfinite(confidence))
    bins = calibration.bin_of(confidence[places])
    return scipy.sparse.csr_array(
        (right[places] - confidence[places], (places, bins)), shape=(len(rows), calibration.BINS)
    )


def _separation(known: pa.Table, unknown: pa.Table, name: str, side: int) -> scipy.sparse.csr_array:
    values, kinds = [], []
    for kind, rows in enumerate((known, unknown)):
        pair, there = both(rows, name)
        values.append(np.where(there, pair[side], 0.0))
        kinds.append(np.where(there, kind, -1))
    return paired.counter(np.concatenate(values), np.concatenate(kinds))


def _ranks(values: Floats, there: np.ndarray) -> Floats:
    ranks = np.zeros(values.size)
    ranks[there] = scipy.stats.rankdata(values[there]) / max(int(there.sum()), 1)
    return ranks


def interval_around(value: float | None, deviation: Interval | None) -> Interval | None:
    """The ends of the interval around ``value``."""
    if value is None or deviation is None or not math.isfinite(value):
        return None
    return value + deviation[0], value + deviation[1]


def side_by_side(values: Sequence[float | None], deviation: Interval | None) -> dict[str, Any]:
    """A metric of both runs as ``compare.json`` has it: a, b, difference = b - a, and its interval."""
    a, b = (value if value is not None and math.isfinite(value) else None for value in values)
    difference = None if a is None or b is None else b - a
    return {"a": a, "b": b, "difference": difference, "interval": interval_around(difference, deviation)}
