"""Rows whose images look alike to the network: pairs of embeddings by their cosine, whitened or plain.

A classifier is trained to make images of one class alike, so that the cosine of what its last layer is given says first
of all which class an image is of. Whitening, x' = M^(-1/2) x with M = E[x x^T], gives the directions in which images of
a class differ as much weight as those that tell classes apart, and whatever noise there is too: docs/duplicates.md has
what that is worth to which network.

Up to some tens of thousands of rows, all pairs are looked at. Of more, those that share a cell: centres of cells are
found by spherical k-means on a sample, and a row is compared with the rows of its nearest cell and with all that have
that cell among their nearest few. Sqrt(n) cells make that n sqrt(n) comparisons, and a pair may be missed.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from regrad.duplicates.clusters import WHITENED, Links
from regrad.duplicates.gathered import Halves
from regrad.duplicates.hashes import Lookalikes
from regrad.errors import UsageError
from regrad.runs.scored import Ints

ALL_PAIRS = 30_000  # rows of which all pairs are looked at
LEAST = 0.7  # of two whose pictures look alike, but not as surely
NEAREST = 5  # cells that a row is in
MOST_LINKS = 20_000_000
_SAMPLE = 100_000  # rows that the whitening is taken from
_PER_CENTRE, _ROUNDS = 40, 8  # rows of the sample, and rounds, of k-means
_SHRINKAGE, _LEAST_SHRINKAGE = 0.1, 1e-3
_BLOCK, _OTHERS = 1024, 8192  # rows at once, and rows they are compared with


def near_links(
    vectors: Halves, among: Ints, threshold: float, looking: Lookalikes | None = None, cosine: str = WHITENED
) -> list[Links]:
    """Of pairs that are ``looking`` alike, those with few different bits, and those whose embeddings have a cosine of
    at least :data:`LEAST`; and all pairs of the rows ``among`` that have at least ``threshold``.

    Memory: blocks of some ten thousand rows; the embeddings that are compared lie in a temporary file.

    Args:
        vectors: (n, d) embeddings of all rows.
        among: numbers of the rows to compare, ascending.
        looking: of places in ``among``.
        cosine: one of :data:`regrad.duplicates.clusters.COSINES`.

    Raises:
        UsageError: more than :data:`MOST_LINKS` pairs are that alike.
    """
    with tempfile.TemporaryDirectory(prefix="regrad-near-") as folder:
        white = _directions(vectors, among, cosine, os.path.join(folder, "white"))
        seen = _seen(white, looking) if looking else Links.none()
        blocks = _all_pairs(white) if len(among) <= ALL_PAIRS else _in_cells(white)
        parts: list[Links] = []
        count = 0
        for links in itertools.chain.from_iterable(_alike(white, *block, threshold) for block in blocks):
            parts.append(links)
            count += len(links.first)
            if count > MOST_LINKS:
                raise UsageError(
                    f"more than {MOST_LINKS:,} pairs of images are as alike as --threshold {threshold:g} asks; raise it"
                )
        found = [seen, Links.joined(parts)]
    return [Links(among[links.first], among[links.second], links.similarity) for links in found]


def _directions(vectors: Halves, among: Ints, cosine: str, path: str) -> Halves:
    """(m, d) x' / |x'|, x' whitened or x as it is, in a file; zero where x is."""
    shape = (len(among), vectors.shape[1])
    if not all(shape):
        return np.empty(shape, np.float16)
    sample = among[:: 1 + len(among) // _SAMPLE]
    blocks = (_floats(vectors, sample[start : start + _BLOCK]) for start in range(0, len(sample), _BLOCK))
    transform = whitening(blocks) if cosine == WHITENED else torch.eye(shape[1])
    written = np.memmap(path, np.float16, "w+", shape=shape)
    for start in range(0, len(among), _OTHERS):
        own = _floats(vectors, among[start : start + _OTHERS]) @ transform
        written[start : start + len(own)] = torch.nn.functional.normalize(own).half().numpy()
    return written


def whitening(blocks: Iterable[Tensor]) -> Tensor:
    """M^(-1/2), M = (1 - a) E[x x^T] + a t I with t its mean eigenvalue and a = min(1, d / 10 n): (d, d), symmetric.

    Not of the deviations from the mean: of a few rows, these are what tells alike ones apart. With fewer rows than a
    tenth of d there is no telling of directions, and M is t I.

    Args:
        blocks: x, (m, d) at a time, n in all.
    """
    rows, moment = 0, torch.zeros(())
    for x in blocks:
        rows, moment = rows + len(x), moment + x.double().T @ x.double()
    values, directions = torch.linalg.eigh(moment / rows)
    mean = values.mean().clamp_min(1e-12)
    share = min(1.0, max(_LEAST_SHRINKAGE, _SHRINKAGE * len(values) / rows))
    scale = ((1 - share) * values.clamp_min(0) + share * mean).rsqrt()
    return (directions * scale @ directions.T).float()


def _floats(vectors: Halves, rows: Ints | slice) -> Tensor:
    return torch.from_numpy(np.asarray(vectors[rows], np.float32))


def _all_pairs(white: Halves) -> Iterator[tuple[Ints, Ints]]:
    rows = np.arange(len(white))
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK], rows[start:]


def _in_cells(white: Halves) -> Iterator[tuple[Ints, Ints]]:
    """Blocks of the rows of a cell, and the rows that have it among their :data:`NEAREST`."""
    cells = round((NEAREST * len(white)) ** 0.5)  # assigning rows costs as much as comparing them
    nearest = _nearest(white, _centres(white, cells))
    flat = nearest.ravel()
    order = np.argsort(flat, kind="stable")
    bounds = np.searchsorted(flat[order], np.arange(cells + 1))
    for cell, (start, stop) in enumerate(itertools.pairwise(bounds)):
        others = order[start:stop] // NEAREST
        own = others[nearest[others, 0] == cell]
        for begin in range(0, len(own), _BLOCK):
            yield own[begin : begin + _BLOCK], others


def _centres(white: Halves, cells: int) -> Tensor:
    """(K, d) by spherical k-means on a sample; the same every time."""
    draw = np.random.default_rng(0)
    chosen = np.sort(
        draw.choice(len(white), min(len(white), max(cells, min(_PER_CENTRE * cells, _SAMPLE))), replace=False)
    )
    sample = _floats(white, chosen)
    centres = sample[torch.from_numpy(draw.choice(len(sample), cells, replace=False))]
    for _ in range(_ROUNDS):
        place = torch.cat([(some @ centres.T).argmax(1) for some in sample.split(_OTHERS)])
        sums = torch.zeros_like(centres).index_add_(0, place, sample)
        empty = sums.square().sum(1) < 1e-12
        centres = torch.where(empty[:, None], centres, torch.nn.functional.normalize(sums))
    return centres


def _nearest(white: Halves, centres: Tensor) -> Ints:
    """(m, NEAREST) the cells of each row, the nearest first."""
    parts = [
        (_floats(white, slice(start, start + _OTHERS)) @ centres.T).topk(NEAREST, 1).indices.numpy()
        for start in range(0, len(white), _OTHERS)
    ]
    return np.concatenate(parts)


def _seen(white: Halves, pairs: Lookalikes) -> Links:
    parts = []
    for start in range(0, len(pairs.first), _OTHERS):
        piece = slice(start, start + _OTHERS)
        first, second = pairs.first[piece], pairs.second[piece]
        cosines = (_floats(white, first) * _floats(white, second)).sum(1).clamp(0, 1).numpy()
        enough = pairs.sure[piece] | (cosines >= LEAST)
        parts.append(Links(first[enough], second[enough], cosines[enough]))
    return Links.joined(parts)


def _alike(white: Halves, rows: Ints, others: Ints, threshold: float) -> Iterator[Links]:
    own = _floats(white, rows)
    for start in range(0, len(others), _OTHERS):
        some = others[start : start + _OTHERS]
        cosines = own @ _floats(white, some).T
        if float(cosines.max()) < threshold:
            continue
        first, second = (cosines >= threshold).nonzero(as_tuple=True)
        values = cosines[first, second].clamp_max(1).numpy()
        pair = rows[first.numpy()], some[second.numpy()]
        once = pair[0] != pair[1]
        yield Links(pair[0][once], pair[1][once], values[once])
