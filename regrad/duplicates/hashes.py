"""Rows whose pictures look alike, or like each other's mirror image: pairs of 64-bit hashes with few different bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from regrad.duplicates.means import Each, Task, one_by_one
from regrad.errors import UsageError
from regrad.reading.likeness import MIRRORED
from regrad.runs.pairs import Keys
from regrad.runs.scored import Ints

BITS = 64
MOST_PAIRS = 20_000_000
_TASK_ROWS = 2**18  # about as many, 32 bytes each, has a task
_BLOCK, _OTHERS = 512, 8192  # hashes compared at once


def hash_pairs(hashes: Keys, distance: int, each: Each = one_by_one) -> Ints:
    """(2, m) places i < j of rows of which at most ``distance`` bits differ, in the picture or its mirror image.

    None is missed: two hashes that differ in at most b bits have one of b + 1 bands in common, and all rows that have
    one in common are compared. That is about (b + 1) n^2 / 2^(64 / (b + 1)) comparisons. Memory: 32 bytes a row, beside
    the pairs; of a task, that of some 300,000 rows.

    Raises:
        UsageError: more than :data:`MOST_PAIRS`.
    """
    pairs = [np.empty((2, 0), np.int64)]
    count = 0
    for answer in each(same_band, _tasks(hashes, distance)):
        pairs.append(answer["pairs"])
        count += answer["pairs"].shape[1]
        _refuse_more(count, distance)
    unique: Ints = np.unique(np.concatenate(pairs, 1), axis=1)
    return unique


def differing_bits(hashes: Keys, others: Keys) -> Ints:
    """(n,) the bits in which hashes differ from others, or from the mirror images of these."""
    bits = hashes ^ others
    return np.minimum(np.bitwise_count(bits), np.bitwise_count(bits ^ np.uint64(MIRRORED)))


def same_band(task: Task) -> Task:
    """``pairs``: (2, m) places i < j of hashes that have a band of bits in common and few differing.

    Args:
        task: ``own, others`` -> (places, ascending, and hashes) to compare with each other; ``band``: its first bit,
            and the one after it; ``distance``.

    Raises:
        UsageError: more than :data:`MOST_PAIRS`.
    """
    pairs, count = [np.empty((2, 0), np.int64)], 0
    for some in _same_band(task["own"], task["others"], task["band"], task["distance"]):
        pairs.append(some)
        count += some.shape[1]
        _refuse_more(count, task["distance"])
    return {"pairs": np.concatenate(pairs, 1)}


def _tasks(hashes: Keys, distance: int) -> Iterator[Task]:
    """Those with the same band are in the same task, and no more than so many others."""
    edges = np.linspace(0, BITS, distance + 2).astype(int).tolist()
    parts = np.uint64(1 + len(hashes) // _TASK_ROWS)
    for other, band in itertools.product((hashes, hashes ^ np.uint64(MIRRORED)), itertools.pairwise(edges)):
        sides = [_by_part(some, _band(some, band) % parts, int(parts)) for some in (hashes, other)]
        for own, others in zip(*sides, strict=True):
            task = {"source": "perceptual hashes", "band": band, "distance": distance}
            yield task | {"own": own, "others": others}


def _by_part(hashes: Keys, part: Keys, parts: int) -> Iterator[tuple[Ints, Keys]]:
    """The places of each part, ascending, and the hashes there."""
    order = np.argsort(part, kind="stable")
    for start, stop in itertools.pairwise(np.searchsorted(part[order], np.arange(parts + 1))):
        yield order[start:stop], hashes[order[start:stop]]


def _band(hashes: Keys, band: tuple[int, int]) -> Keys:
    low, high = band
    bits: Keys = (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)
    return bits


def _same_band(
    own: tuple[Ints, Keys], others: tuple[Ints, Keys], band: tuple[int, int], distance: int
) -> Iterator[Ints]:
    """Pairs (2, k) of places i < j whose ``own[i]`` and ``others[j]`` agree in the band."""
    (places, hashes), (against, theirs) = own, others
    bits, beside = _band(hashes, band), _band(theirs, band)
    order, other_order = np.argsort(bits, kind="stable"), np.argsort(beside, kind="stable")
    values = np.unique(bits)
    starts, stops = (np.searchsorted(bits[order], values, side) for side in ("left", "right"))
    begins, ends = (np.searchsorted(beside[other_order], values, side) for side in ("left", "right"))
    for start, stop, begin, end in zip(starts, stops, begins, ends, strict=True):
        rows, columns = order[start:stop], other_order[begin:end]
        for place in range(0, len(rows), _BLOCK):
            for at in range(0, len(columns), _OTHERS):
                some, few = rows[place : place + _BLOCK], columns[at : at + _OTHERS]
                # Places of a band ascend: of most blocks above the diagonal nothing is left to compare.
                if places[some[0]] < against[few[-1]]:
                    yield _alike((places[some], hashes[some]), (against[few], theirs[few]), distance)


def _alike(own: tuple[Ints, Keys], others: tuple[Ints, Keys], distance: int) -> Ints:
    first, second = np.nonzero(np.bitwise_count(own[1][:, None] ^ others[1][None, :]) <= distance)
    pairs = np.stack([own[0][first], others[0][second]])
    once: Ints = pairs[:, pairs[0] < pairs[1]]
    return once


def _refuse_more(count: int, distance: int) -> None:
    if count > MOST_PAIRS:
        raise UsageError(
            f"more than {MOST_PAIRS:,} pairs of images look alike in all but {distance} bits; lower --distance"
        )
