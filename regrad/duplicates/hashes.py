"""Rows whose pictures look alike, or like each other's mirror image: pairs of 64-bit hashes with few different bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from regrad.errors import UsageError
from regrad.reading.likeness import MIRRORED
from regrad.runs.pairs import Keys
from regrad.runs.scored import Bools, Ints

BITS = 64
MOST_PAIRS = 20_000_000
_BLOCK, _OTHERS = 512, 8192  # hashes compared at once


@dataclass(frozen=True)
class Lookalikes:
    """Lookalikes of rows that look alike, each once.

    Attributes:
        first, second: (m,) their places, the first before the second.
        sure: (m,) whether so few bits differ that nothing else need be alike.
    """

    first: Ints
    second: Ints
    sure: Bools


def hash_pairs(hashes: Keys, distance: int) -> Lookalikes:
    """Rows of which at most twice ``distance`` bits differ, in the picture or its mirror image; ``distance`` are sure.

    None is missed: two hashes that differ in at most b bits have one of b + 1 bands in common, and all rows that have
    one in common are compared. That is about (b + 1) n^2 / 2^(64 / (b + 1)) comparisons, b = 2 ``distance``.

    Raises:
        UsageError: more than :data:`MOST_PAIRS`.
    """
    pairs = [np.empty((2, 0), np.int64)]
    count, most = 0, 2 * distance
    edges = np.linspace(0, BITS, most + 2).astype(int)
    for other in (hashes, hashes ^ np.uint64(MIRRORED)):
        for band in itertools.pairwise(edges.tolist()):
            for some in _same_band(hashes, other, *band, most):
                pairs.append(some)
                count += some.shape[1]
                if count > MOST_PAIRS:
                    raise UsageError(
                        f"more than {MOST_PAIRS:,} pairs of images look alike in all but {most} bits; lower --distance"
                    )
    first, second = np.unique(np.concatenate(pairs, 1), axis=1)
    return Lookalikes(first, second, _differing(hashes, first, second) <= distance)


def _differing(hashes: Keys, first: Ints, second: Ints) -> Ints:
    bits = hashes[first] ^ hashes[second]
    return np.minimum(np.bitwise_count(bits), np.bitwise_count(bits ^ np.uint64(MIRRORED)))


def _same_band(hashes: Keys, other: Keys, low: int, high: int, most: int) -> Iterator[Ints]:
    """Pairs (2, k) of rows i < j whose ``hashes[i]`` and ``other[j]`` agree in the bits from ``low`` to ``high``."""
    shift, mask = np.uint64(low), np.uint64(2 ** (high - low) - 1)
    own, theirs = ((some >> shift) & mask for some in (hashes, other))
    order, beside = np.argsort(own, kind="stable"), np.argsort(theirs, kind="stable")
    bands = np.unique(own)
    bounds, others = (
        [np.searchsorted(some[rows], bands, side) for side in ("left", "right")]
        for some, rows in ((own, order), (theirs, beside))
    )
    for start, stop, begin, end in zip(*bounds, *others, strict=True):
        rows, against = order[start:stop], beside[begin:end]
        for place in range(0, len(rows), _BLOCK):
            for at in range(0, len(against), _OTHERS):
                yield _alike(hashes, other, rows[place : place + _BLOCK], against[at : at + _OTHERS], most)


def _alike(hashes: Keys, other: Keys, rows: Ints, against: Ints, most: int) -> Ints:
    # Rows of a band ascend: of most blocks above the diagonal nothing is left to compare.
    if rows[0] >= against[-1]:
        return np.empty((2, 0), np.int64)
    differing = np.bitwise_count(hashes[rows][:, None] ^ other[against][None, :])
    first, second = np.nonzero(differing <= most)
    pairs = np.stack([rows[first], against[second]])
    once: Ints = pairs[:, pairs[0] < pairs[1]]
    return once
