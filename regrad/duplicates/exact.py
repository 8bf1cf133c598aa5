"""Rows whose images are the same, in bytes or in pixels: by their digests, in a sort of the first halves of them."""

from __future__ import annotations

import numpy as np

from regrad.duplicates.clusters import Links
from regrad.duplicates.gathered import NO_DIGEST, Gathered
from regrad.runs.scored import Ints

_AT_ONCE = 2**18  # links whose digests are compared at once


def exact_links(rows: Gathered, name: str) -> Links:
    """Each row whose digest an earlier one has, linked with the first that has it: 24 bytes a row in memory.

    Rows without a digest (of versions before it) are linked with none.

    Args:
        name: ``digest``, of the bytes, or ``pixels``.
    """
    order = np.argsort(rows.keys[name], kind="stable")  # equal keys in the order of the rows
    ordered = rows.keys[name][order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else np.empty(0, np.int64)
    sizes = np.diff(np.r_[begins, len(order)])
    first = np.repeat(order[begins], sizes)
    linked = (first != order) & (ordered != NO_DIGEST)
    return _confirmed(rows, name, first[linked], order[linked])


def _confirmed(rows: Gathered, name: str, first: Ints, second: Ints) -> Links:
    """Those of which the whole digests are the same: halves of them are, by chance, in 3 % of collections of 10^9."""
    kept = []
    for start in range(0, len(first), _AT_ONCE):
        piece = slice(start, start + _AT_ONCE)
        whole, other = (np.array(rows.known_by(some[piece])[name].to_pylist()) for some in (first, second))
        kept.append(whole == other)
    same = np.concatenate([np.empty(0, bool), *kept])
    return Links(first[same], second[same], np.ones(int(same.sum()), np.float32))
