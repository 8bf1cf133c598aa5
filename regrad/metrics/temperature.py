"""One number that makes a classifier's probabilities honest: T of softmax(z / T), by the likelihood of labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.special

from regrad.metrics.arrays import FloatArray

LEAST, MOST = 0.01, 100.0  # temperatures that are looked at
_NUMBERS = 2**21  # logits at once, in float64

Logits = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """T = argmin -1/n sum_i log softmax(z_i / T)[y_i], whose derivative by b = 1/T is 1/n sum_i (p_i . z_i - z_i[y_i]).

    The sum is convex in b, so its derivative ascends, and Brent's method finds where it is zero, to 1e-12 of b.

    Args:
        logits: z, (n, C).
        labels: y, (n,) classes.

    Raises:
        ValueError: no T from 0.01 to 100 minimises it: the predictions are all right, or no better than chance.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017; the optimiser is scipy's.
    """
    ends = [_slope(1 / temperature, logits, labels) for temperature in (MOST, LEAST)]
    if ends[0] >= 0:
        raise ValueError("the labels are no more probable than by chance, so that no temperature fits")
    if ends[1] <= 0:
        raise ValueError("every label is the most probable class, so that the smallest temperature fits best")
    return 1 / float(scipy.optimize.brentq(_slope, 1 / MOST, 1 / LEAST, args=(logits, labels), xtol=1e-15, rtol=1e-12))


def label_losses(logits: Logits, labels: Labels, temperature: float = 1.0) -> FloatArray:
    """(n,) -log softmax(z / T)[y], in nats.

    Args:
        logits: z, (n, C).
        labels: y, (n,) classes.
        temperature: T.
    """
    parts = [
        scipy.special.logsumexp(z / temperature, axis=1) - _of_labels(z, y) / temperature
        for z, y in _pieces(logits, labels)
    ]
    return np.concatenate(parts)


def _slope(inverse: float, logits: Logits, labels: Labels) -> float:
    total = 0.0
    for z, y in _pieces(logits, labels):
        p = scipy.special.softmax(z * inverse, axis=1)
        total += float(((p * z).sum(1) - _of_labels(z, y)).sum())
    return total / len(logits)


def _pieces(logits: Logits, labels: Labels) -> Iterator[tuple[FloatArray, Labels]]:
    """Some rows at a time, in float64, the largest logit of each 0: nothing of them is lost to large numbers."""
    rows = max(1, _NUMBERS // logits.shape[1])
    for start in range(0, len(logits), rows):
        z = logits[start : start + rows].astype(np.float64)
        yield z - z.max(1, keepdims=True), labels[start : start + rows]


def _of_labels(z: FloatArray, labels: Labels) -> FloatArray:
    of_labels: FloatArray = np.take_along_axis(z, labels[:, None], 1)[:, 0]
    return of_labels
