"""Which images to label: the most uncertain ones, spread over classes and over the network's features if asked.

The practical form of the paper's active learning: a budget, a score, and images that are not labelled yet. Labels in
the score table are not looked at, but where they are what is to be checked: then the score is how improbable they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.cluster import kmeans_plusplus

from regrad import storage, table
from regrad.errors import UsageError
from regrad.handover.labelled import Labelled
from regrad.runs.scored import Bools, Floats, Ints, Run, floats, integers
from regrad.runs.sift import Best

_COLUMNS = ("id", "source", "row", "prediction", "confidence", "digest")


def candidates(
    run: Run, score: str, labelled: Labelled, budget: int, balanced: bool, pool: int = 1, more: Sequence[str] = ()
) -> pa.Table:
    """The images to choose from: the ``pool`` times ``budget`` highest scores that are not labelled.

    Balanced, the budget is shared out over the predicted classes, see :func:`quotas`, and each class has ``pool`` times
    its part. The column ``quota`` says how many are to be chosen of the row's class (or of all).

    Memory: the candidates, whatever the number of rows.

    Args:
        score: a score of the run, or ``nll``, which the labelled images of the run alone have.
        more: columns to carry along.

    Returns:
        ``id, source, row, prediction, confidence, digest``, those of ``more``, ``score, quota``, highest score first.

    Raises:
        UsageError: every image is labelled, or has no score.
        RegradError: the storage refused or failed.
    """
    classes = run.model["classes"] if balanced else 1
    there = np.zeros(classes, np.int64)
    for rows in run.tables(["id", "source", "prediction", score]):
        there += np.bincount(_groups(rows, classes)[_free(rows, score, labelled)], minlength=classes)
    if not there.any():
        raise UsageError(
            f"{storage.mask(run.output)}: every image is in --labelled or has no {score}; there is nothing to choose "
            "from"
        )
    shares = quotas(there, budget)
    best = [Best(int(pool * share)) for share in shares]
    for rows in run.tables([*_COLUMNS, *more, score]):
        plain = rows.select([*_COLUMNS, *more]).append_column("score", rows[score])
        scores, groups, free = floats(rows[score]), _groups(rows, classes), _free(rows, score, labelled)
        for group in np.unique(groups[free]):
            best[group].offer(plain, -scores, free & (groups == group))
    tables = []
    for share, kind in zip(shares, best, strict=True):
        if kind.table is not None and len(kind.table):
            tables.append(kind.table.append_column("quota", pa.array([int(share)] * len(kind.table), pa.int64())))
    return pa.concat_tables(tables).sort_by([("score", "descending"), ("source", "ascending"), ("row", "ascending")])


def quotas(there: Ints, budget: int) -> Ints:
    """How many of each class: as equal as what is ``there`` (classes,) allows, ``budget`` in all if there are so many.

    >>> quotas(np.array([5, 0, 100, 2]), 12).tolist()
    [5, 0, 5, 2]
    """
    shares = np.zeros_like(there)
    while (left := min(budget, int(there.sum())) - int(shares.sum())) > 0:
        open_classes = np.flatnonzero(there > shares)
        each = max(left // open_classes.size, 1)
        open_classes = open_classes[:left]
        shares[open_classes] += np.minimum(there[open_classes] - shares[open_classes], each)
    return shares


def choose(
    rows: pa.Table, balanced: bool, diversity: str = "none", features: Floats | None = None, seed: int = 0
) -> pa.Table:
    """The chosen ones of :func:`candidates`, highest score first, with their ``rank`` from 1.

    Args:
        diversity: ``none`` takes the highest scores, ``k-center`` and ``k-means++`` spread over the ``features``.
        features: (n, d) of the candidates; needed unless ``none``.
        seed: of k-means++.
    """
    groups = integers(rows["prediction"]) if balanced else np.zeros(len(rows), np.int64)
    quota = integers(rows["quota"])
    chosen: list[int] = []
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        count = min(int(quota[places[0]]), places.size)
        if diversity == "none" or count == places.size:
            chosen += places[:count].tolist()
            continue
        assert features is not None
        pick = k_center if diversity == "k-center" else spread
        chosen += places[pick(features[places], count, seed)].tolist()
    order = sorted(chosen)  # candidates come highest score first
    picked = rows.take(pa.array(order, pa.int64())).drop_columns(["quota"])
    return picked.add_column(0, "rank", pa.array(range(1, len(order) + 1), pa.int64()))


def k_center(features: Floats, count: int, seed: int = 0) -> Ints:
    """Greedy k-center: begin with the first row, then ``count`` - 1 times the row farthest from all taken so far.

    At most twice as far as need be is any row from the nearest one taken (Gonzalez 1985; Sener and Savarese 2018).

    Args:
        features: (n, d).
        seed: not used; the choice is determined.
    """
    chosen = [0]
    distance = np.linalg.norm(features - features[0], axis=1)
    while len(chosen) < count:
        distance[chosen[-1]] = -1.0  # not again, even where all are alike
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(features - features[chosen[-1]], axis=1))
        distance[chosen] = -1.0
    return np.array(chosen)


def spread(features: Floats, count: int, seed: int = 0) -> Ints:
    """scikit-learn's seeding of k-means++: each next row with a probability by its squared distance from those taken.

    Args:
        features: (n, d); rows that are all alike are taken in order.
    """
    distinct = np.unique(features, axis=0, return_index=True)[1]
    distinct.sort()
    if distinct.size <= count:
        others = np.setdiff1d(np.arange(len(features)), distinct)[: count - distinct.size]
        return np.r_[distinct, others]
    return distinct[kmeans_plusplus(features[distinct], count, random_state=seed)[1]]


def stem_of(output: str) -> str:
    """``output`` without the ending of a list.

    >>> stem_of("s3://bucket/to-label.csv"), stem_of("to-label.parquet")
    ('s3://bucket/to-label', 'to-label')
    """
    return output.removesuffix(".csv").removesuffix(".parquet")


def write_choice(rows: pa.Table, score: str, output: str) -> tuple[str, str]:
    """Write the chosen rows, without their digests, as CSV and as Parquet beside each other; returns the two places.

    Raises:
        RegradError: the storage refused or failed.
    """
    shown = rows.drop_columns(["digest"])
    named = shown.rename_columns([score if name == "score" else name for name in shown.column_names])
    return table.write_list(stem_of(output), named)


def _free(rows: pa.Table, score: str, labelled: Labelled) -> Bools:
    return ~labelled.contains(rows) & ~np.isnan(floats(rows[score]))


def _groups(rows: pa.Table, classes: int) -> Ints:
    if classes == 1:
        return np.zeros(len(rows), np.int64)
    return np.clip(integers(rows["prediction"]), 0, classes - 1)


def order_of(rows: pa.Table) -> dict[str, list[tuple[int, str, int]]]:
    """source -> (row, id, place among ``rows``): what features are asked for by."""
    wanted: dict[str, list[tuple[int, str, int]]] = {}
    images = zip(*(rows[name].to_pylist() for name in ("source", "row", "id")), strict=True)
    for place, (source, row, name) in enumerate(images):
        wanted.setdefault(source, []).append((row, name, place))
    return wanted


def place_features(features: Sequence[tuple[int, Sequence[float]]], count: int) -> tuple[Floats, list[int]]:
    """The features in the order of the candidates (m, d), and the places there are features for."""
    there: dict[int, Any] = dict(features)
    places = [place for place in range(count) if place in there]
    return np.array([there[place] for place in places], np.float64), places
