"""Which images of a run are on a map: the most uncertain ones, some of every predicted class, and others at random."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from regrad.runs.pairs import FACTOR, Keys, mixed
from regrad.runs.scored import Bools, Floats, Ints, Run, codes, floats, integers

EACH = 20  # images of every predicted class, where there is room for them
KNOWN_BY = ("id", "source", "row", "prediction")
KEY, SCORE = "key", "score"


@dataclass(frozen=True)
class Points:
    """The chosen images of a run.

    Attributes:
        rows: ``id, source, row, prediction, score, key``, in the order of sources and rows.
        images: how many there were to choose from.
        uncertain, rare: how many were chosen for their score, and as some of their class; the others were drawn.
    """

    rows: pa.Table
    images: int
    uncertain: int
    rare: int


def fair_shares(sizes: Sequence[int], places: int) -> list[int]:
    """Of ``places``, as many for each of some sets as for any other; what one cannot fill goes to the others.

    >>> fair_shares([10, 1000, 2000], 110), fair_shares([3, 4], 110)
    ([10, 50, 50], [3, 4])
    """
    shares = [0] * len(sizes)
    order = sorted(range(len(sizes)), key=lambda place: sizes[place])
    for turn, place in enumerate(order):
        shares[place] = min(sizes[place], places // (len(sizes) - turn))
        places -= shares[place]
    return shares


def choose_points(run: Run, score: str, threshold: float, places: int) -> Points:
    """Up to ``places`` images of ``run``, read once as a stream.

    In turn: those with the highest score, a quarter of the places, or all flagged ones up to half of them; of each
    predicted class :data:`EACH`, the smallest classes first, up to a quarter; from all others a random sample. What is
    random goes by a hash of source and row, so that the same images are chosen whatever files they lie in.

    Memory: 1.5 ``places`` rows, :data:`EACH` rows of each class, and what is read at once.

    Args:
        threshold: an image is flagged above it.

    Raises:
        RegradError: the storage refused or failed.
    """
    classes = run.model["classes"]
    each = max(1, min(EACH, places // 4 // classes))
    by_class = np.zeros(classes + 1, np.int64)
    held: pa.Table | None = None
    for rows in run.tables([*KNOWN_BY, score]):
        by_class += np.bincount(_classes(rows, classes), minlength=classes + 1)
        some = rows.select(KNOWN_BY).append_column(SCORE, pa.array(floats(rows[score])))
        some = some.append_column(KEY, pa.array(row_keys(rows)))
        held = some if held is None else pa.concat_tables([held, some])
        held = held.filter(pa.array(_in_question(held, classes, places, each)))
    if held is None:
        held = pa.table({name: [] for name in (*KNOWN_BY, SCORE, KEY)})
    uncertain, rare, drawn = _choice(held, threshold, by_class, places, each)
    chosen = held.take(pa.array(np.concatenate([uncertain, rare, drawn])))
    chosen = chosen.sort_by([("source", "ascending"), ("row", "ascending")])
    return Points(chosen, int(by_class.sum()), uncertain.size, rare.size)


def _choice(held: pa.Table, threshold: float, by_class: Ints, places: int, each: int) -> tuple[Ints, Ints, Ints]:
    """The places in ``held`` of the uncertain, of those of rare classes and of those that are drawn; none twice."""
    scores, keys = floats(held[SCORE]), held[KEY].to_numpy()
    classes = _classes(held, by_class.size - 1)
    free = np.ones(len(held), bool)

    def take(order: Ints, most: int) -> Ints:
        taken: Ints = order[free[order]][: max(most, 0)]
        free[taken] = False
        return taken

    by_score = _by_score(scores, keys)
    flagged = int((scores > threshold).sum())
    uncertain = take(by_score[~np.isnan(scores[by_score])], min(max(flagged, places // 4), places // 2))
    first = np.flatnonzero(_first_of_each(classes, keys, each))
    rare = take(first[np.lexsort([keys[first], classes[first], by_class[classes[first]]])], places // 4)
    drawn = take(np.argsort(keys, kind="stable"), places - uncertain.size - rare.size)
    return uncertain, rare, drawn


def _in_question(rows: pa.Table, classes: int, places: int, each: int) -> Bools:
    """(n,) which of ``rows`` are among the first of any order that a choice goes by, whatever comes after them."""
    scores, keys = floats(rows[SCORE]), rows[KEY].to_numpy()
    held = _first_of_each(_classes(rows, classes), keys, each)
    held[_by_score(scores, keys)[: places // 2]] = True
    held[np.argsort(keys, kind="stable")[:places]] = True
    return held


def _by_score(scores: Floats, keys: Keys) -> Ints:
    """The order from the highest score down, ties by their keys, NaN last."""
    order: Ints = np.lexsort([keys, np.where(np.isnan(scores), np.inf, -scores)])
    return order


def _first_of_each(classes: Ints, keys: Keys, each: int) -> Bools:
    """(n,) which have one of the ``each`` smallest keys of their class."""
    order = np.lexsort([keys, classes])
    ordered = classes[order]
    begins = np.searchsorted(ordered, ordered)
    first = np.empty(len(classes), bool)
    first[order] = np.arange(len(classes)) - begins < each
    return first


def _classes(rows: pa.Table, classes: int) -> Ints:
    """(n,) the predicted classes; ``classes`` where there is none."""
    predictions = integers(rows["prediction"])
    return np.where((predictions >= 0) & (predictions < classes), predictions, classes)


def row_keys(rows: pa.Table) -> Keys:
    """(n,) a hash of each row's source and number, which tells it in its run."""
    places, names = codes(rows["source"])
    hashes = [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") for name in names]
    with np.errstate(over="ignore"):
        return mixed(np.array(hashes, np.uint64)[places] + integers(rows["row"]).astype(np.uint64) * FACTOR)
