"""The first reading of a run: how its scores and confidences are distributed. Memory does not grow with the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.metrics import bootstrap, calibration
from regrad.metrics.confident import SelfConfidence
from regrad.metrics.conformal import PValues
from regrad.metrics.wilson import share_interval
from regrad.runs.sampled import Sampled
from regrad.runs.scored import NO_LABEL, Floats, Ints, Run, floats, integers, judged
from regrad.runs.sets import SetSizes
from regrad.runs.tally import Judged, align_counts, kinds_of


class Survey:
    """What the rows of one run amount to.

    Args:
        run: the run to read.
        scores: the score columns to read.
        sampled: keep a sample of the labelled rows in ``sample``, with all ``scores`` of each.

    Raises:
        UsageError: the run has no row.
        RegradError: the storage refused or failed, or a score has no value but NaN.
    """

    def __init__(self, run: Run, scores: Sequence[str], sampled: bool = False):
        self.run = run
        self.sample = Sampled(len(scores))
        self.images = self.labels_outside = 0
        self.left_out = dict.fromkeys(scores, 0)
        self.confidence, self.losses = Confidence(), Losses()
        self.own = SelfConfidence(run.model["classes"])
        self.tallies = {name: Judged() for name in scores}
        self.sets = None if run.coverage is None else SetSizes(run.coverage, run.model["classes"])
        several = ["prediction_set"] if self.sets else []
        for rows in run.tables(["label", "prediction", "confidence", "nll", *several, *scores]):
            labelled, right = judged(rows, run.model["classes"])
            labels, losses = integers(rows["label"]), floats(rows["nll"])[labelled]
            kinds = kinds_of(labelled, right)
            self.images += len(rows)
            self.labels_outside += int(((labels != NO_LABEL) & ~labelled).sum())
            confidence = floats(rows["confidence"])
            self.confidence.add(confidence[labelled], right[labelled])
            self.confidence.add_unjudged(confidence[~labelled])
            self.losses.add(losses)
            self.own.add(labels[labelled], np.exp(-losses))
            if self.sets:
                self.sets.add(rows["prediction_set"], labels, labelled)
            columns = [floats(rows[name]) for name in scores]
            if sampled and labelled.any():
                self.sample.add(np.column_stack(columns)[labelled], ~right[labelled])
            for name, values in zip(scores, columns, strict=True):
                there = ~np.isnan(values)
                self.left_out[name] += int((~there).sum())
                self.tallies[name].add(values[there], kinds[there])
        if not self.images:
            output = storage.mask(run.output)
            raise UsageError(f"{output}: the run scored no image; see {output}/quarantine")
        for name in scores:
            if self.left_out[name] == self.images:
                raise RegradError(
                    f"{storage.mask(run.output)}: every value of {name} is NaN; check the model's outputs"
                )

    @property
    def labelled(self) -> int:
        """How many images have a label that is a class of the model."""
        return int(self.confidence.images.sum())

    def numbers(self) -> dict[str, float | None]:
        """accuracy, ece and nll of the labelled images, None where there are none."""
        if not self.labelled:
            return dict.fromkeys(("accuracy", "ece", "nll"))
        return {**self.confidence.numbers(), "nll": self.losses.mean()}

    def intervals(self) -> dict[str, bootstrap.Interval | None]:
        """Their confidence intervals; empty without labels."""
        if not self.labelled:
            return {}
        return {**self.confidence.intervals(), **self.losses.intervals()}

    def of_sets(self) -> dict[str, dict[str, Any] | None]:
        """``sets`` and ``covered`` of :class:`regrad.runs.sets.SetSizes`, None where there are no prediction sets."""
        return {
            "sets": self.sets.numbers() if self.sets else None,
            "covered": self.sets.covered() if self.sets else None,
        }

    def errors(self, score: str) -> tuple[Floats, Ints, Ints]:
        """The distinct values of ``score`` (k,), ascending, and the right and wrong predictions of each (k,)."""
        return self.tallies[score].errors()


def align(surveys: Sequence[Survey], score: str) -> tuple[Floats, list[Ints], bool]:
    """:func:`regrad.runs.tally.align_counts` of the tallies of ``score``."""
    return align_counts([survey.tallies[score] for survey in surveys])


def p_values(survey: Survey, score: str) -> PValues:
    """Conformal p-values of ``score`` against the images of ``survey``."""
    values, (images,), exact = align([survey], score)
    return PValues(values, images, exact)


class Confidence:
    """Confidence and correctness of labelled images, summed up in narrow cells of confidence; other images counted.

    The cells are 0.05 wide in log(p / (1 - p)) and never cross an edge of the reliability diagram, so what is
    computed from the sums is exact.
    """

    def __init__(self) -> None:
        grid = 1 / (1 + np.exp(-np.arange(-17.5, 17.5, 0.05)))
        self._edges = np.union1d(grid, np.arange(1, calibration.BINS) / calibration.BINS)
        shape = (2, self._edges.size + 1)  # wrong, right
        self.images = np.zeros(shape, np.int64)
        self.unjudged = np.zeros(shape[1], np.int64)
        self._confidence = np.zeros(shape)
        upper = np.r_[self._edges, 1.0]
        self._bin = calibration.bin_of(upper)

    def add(self, confidence: Floats, right: np.ndarray) -> None:
        """Count labelled images: (n,) probability of the predicted class, and whether it was right."""
        there = ~np.isnan(confidence)
        confidence, right = confidence[there], right[there]
        cell = np.searchsorted(self._edges, confidence, side="left") + right * self.images.shape[1]
        for total, weight in ((self.images, None), (self._confidence, confidence)):
            total += np.bincount(cell, weight, total.size).reshape(total.shape).astype(total.dtype)

    def add_unjudged(self, confidence: Floats) -> None:
        """Count images without a usable label: (n,) probability of the predicted class."""
        cell = np.searchsorted(self._edges, confidence[~np.isnan(confidence)], side="left")
        self.unjudged += np.bincount(cell, minlength=self.unjudged.size)

    def numbers(self) -> dict[str, float]:
        """accuracy and ece, as in :mod:`regrad.metrics.calibration`."""
        return {name: float(value[0]) for name, value in self._statistic(self.images[None]).items()}

    def intervals(self) -> dict[str, bootstrap.Interval | None]:
        """The confidence interval of each metric of :meth:`numbers`."""
        return bootstrap.intervals(self._statistic, [self.images])

    def diagram(self) -> dict[str, list[Any]]:
        """Per bin of the reliability diagram that holds images: their number, mean confidence, accuracy, and the
        accuracy's interval.
        """
        images, right = self._by_bin(self.images.sum(0)), self._by_bin(self.images[1])
        filled = images > 0
        confidence = self._by_bin(self._confidence.sum(0))
        return {
            "images": images[filled].astype(int).tolist(),
            "confidence": (confidence[filled] / images[filled]).tolist(),
            "accuracy": (right[filled] / images[filled]).tolist(),
            "intervals": [share_interval(*pair) for pair in zip(right[filled], images[filled], strict=True)],
        }

    def _by_bin(self, cells: np.ndarray) -> np.ndarray:
        return np.stack([cells[..., self._bin == b].sum(-1) for b in range(calibration.BINS)], axis=-1)

    def _statistic(self, drawn: np.ndarray) -> dict[str, np.ndarray]:
        """From (b, 2, cells) images: the sums are scaled, so each drawn image counts as the mean of its cell."""
        per_image = 1 / np.maximum(self.images, 1)
        total = drawn.sum((1, 2))
        confidence = self._by_bin((drawn * (self._confidence * per_image)).sum(1))
        return {
            "accuracy": drawn[:, 1].sum(1) / total,
            "ece": calibration.ece_of_bins(self._by_bin(drawn[:, 1]), confidence, total),
        }


class Losses:
    """The negative log-likelihoods of labels, summed up in narrow cells: the mean is exact.

    The cells are 0.05 wide in log(loss), so a resample in which each image counts as the mean of its cell spreads as
    one of the images does, to a thousandth.
    """

    def __init__(self) -> None:
        self._edges = np.exp(np.arange(-30.0, 15.0, 0.05))
        self._images = np.zeros(self._edges.size + 1, np.int64)
        self._sums = np.zeros(self._edges.size + 1)

    def add(self, losses: Floats) -> None:
        """Count the losses (n,) that are no NaN."""
        losses = losses[~np.isnan(losses)]
        cell = np.searchsorted(self._edges, losses)
        self._images += np.bincount(cell, minlength=self._images.size)
        self._sums += np.bincount(cell, losses, self._sums.size)

    def mean(self) -> float | None:
        """In nats; None without a loss."""
        images = int(self._images.sum())
        return float(self._sums.sum()) / images if images else None

    def intervals(self) -> dict[str, bootstrap.Interval | None]:
        """The confidence interval of ``nll``; None without a loss."""
        means = self._sums / np.maximum(self._images, 1)
        if not self._images.any():
            return {"nll": None}
        return bootstrap.intervals(lambda drawn: {"nll": drawn @ means / drawn.sum(-1)}, [self._images])
