"""Active learning: train on a few labels, ask for those of the images that a score finds most uncertain, train again.

    S_0 = initial random rows,      S_{t+1} = S_t + the ``per_cycle`` most uncertain of the rows outside S_t.

Data, model and trainer are the caller's: the loop knows row numbers only.

>>> import numpy as np
>>> from sklearn.datasets import load_digits
>>> from sklearn.linear_model import LogisticRegression
>>> images, labels = load_digits(return_X_y=True)
>>> pool, test = slice(0, 1200), slice(1200, None)
>>> def train(rows):
...     return LogisticRegression(max_iter=1000).fit(images[rows] / 16, labels[rows])
>>> def entropy(model, rows):
...     p = model.predict_proba(images[rows] / 16)
...     return -(p * np.log(p + 1e-12)).sum(axis=1)
>>> def accuracy(model):
...     return {"accuracy": model.score(images[test] / 16, labels[test])}
>>> cycles = list(active_learning(train, entropy, accuracy, images=1200, initial=40, per_cycle=20, cycles=4))
>>> [len(cycle.labelled) for cycle in cycles]
[40, 60, 80, 100, 120]
>>> cycles[-1].metrics["accuracy"] > cycles[0].metrics["accuracy"]
True

Source: Settles, Active Learning Literature Survey, 2009 (pool-based, uncertainty sampling); Wang & Ji 2024, 5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from regrad.errors import UsageError, require

Rows = npt.NDArray[np.int64]
Model = TypeVar("Model")


@dataclass(frozen=True)
class Cycle:
    """A trained model of the loop.

    Attributes:
        number: 0 for the initial labels, t after t acquisitions.
        labelled: the rows it was trained on, in the order in which they were asked for.
        metrics: what ``evaluate`` found.
    """

    number: int
    labelled: Rows
    metrics: dict[str, float] = field(default_factory=dict)


def active_learning(
    train: Callable[[Rows], Model],
    score: Callable[[Model, Rows], npt.ArrayLike],
    evaluate: Callable[[Model], Mapping[str, float]],
    *,
    images: int,
    initial: int,
    per_cycle: int,
    cycles: int,
    candidates: int | None = None,
    seed: int = 0,
) -> Iterator[Cycle]:
    """``cycles`` + 1 times: train, evaluate, and label the most uncertain; each cycle is given when it is known.

    Args:
        train: rows to label and train on -> a trained model. It is trained anew each time, unless it keeps what it has.
        score: a model and rows -> one number for each row, larger = more uncertain; :func:`at_random` is the baseline.
        evaluate: a model -> its metrics, on data outside the pool.
        images: rows of the pool: 0 to ``images`` - 1.
        initial: rows labelled before the first training, drawn at random.
        per_cycle: rows labelled after each.
        cycles: acquisitions.
        candidates: score only so many rows a cycle, drawn at random of those without a label; None scores all.
        seed: of every draw; two scores with the same seed start from the same rows.

    Raises:
        UsageError: the pool is too small, or ``score`` gave another number of values, or a NaN.
    """
    require(
        {
            f"initial {initial}: must be 1 or larger": initial > 0,
            f"per cycle {per_cycle}: must be 1 or larger": per_cycle > 0,
            f"candidates {candidates}: fewer than are labelled in a cycle": candidates is None
            or candidates >= per_cycle,
            f"images {images}: {initial} + {cycles} x {per_cycle} are to be labelled": images
            >= initial + cycles * per_cycle,
        }
    )
    rng = np.random.default_rng(seed)
    order = rng.permutation(images)
    labelled, rest = order[:initial], order[initial:]
    for number in range(cycles + 1):
        model = train(labelled)
        yield Cycle(number, labelled, dict(evaluate(model)))
        if number == cycles:
            return
        # Ties go by this draw: rows in the order of a dataset come class by class in many.
        asked = rng.permutation(rest)[:candidates]
        values = _checked(score(model, asked), len(asked))
        chosen = asked[np.argsort(-values, kind="stable")[:per_cycle]]
        labelled = np.concatenate([labelled, chosen])
        rest = rest[~np.isin(rest, chosen)]


def at_random(model: Any, rows: Rows) -> npt.NDArray[np.float64]:
    """A score that is the same for all rows, which leaves the choice to the loop's own draw: the baseline."""
    return np.zeros(len(rows))


def _checked(values: npt.ArrayLike, rows: int) -> npt.NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.shape != (rows,):
        raise UsageError(f"score gave values of shape {scores.shape} for {rows} rows; give one for each")
    if np.isnan(scores).any():
        raise UsageError(
            f"score gave {int(np.isnan(scores).sum())} NaN for {rows} rows: they have no place in an order"
        )
    return scores
