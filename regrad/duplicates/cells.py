"""Where an embedding lies: its direction, whitened or plain, and the cells nearest to it.

A classifier is trained to make images of one class alike, so that the cosine of what its last layer is given says first
of all which class an image is of. Whitening, x' = M^(-1/2) x with M = E[x x^T], gives the directions in which images of
a class differ as much weight as those that tell classes apart, and whatever noise there is too: docs/duplicates.md has
what that is worth to which network.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrad import storage
from regrad.duplicates.clusters import PLAIN, WHITENED
from regrad.runs.scored import Floats, Ints

LEAST = 0.7  # of what may be one picture, if it looks the same
ALL_PAIRS = 30_000  # rows that are in one cell
NEAREST = 5  # cells that a row is in
SAMPLE = 100_000  # rows, about, that all follows from
_GROUP_BYTES = 32 * 2**20  # of the directions that a group is the nearest of
_COMPARED = 1000  # rows with as many others, for what their cosines are like
_PER_CENTRE, _ROUNDS = 40, 8  # rows of the sample, and rounds, of k-means
_SHRINKAGE, _LEAST_SHRINKAGE = 0.1, 1e-3
_AT_ONCE = 8192

Halves = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Cells:
    """What is near to what.

    Attributes:
        cosine: one of :data:`regrad.duplicates.clusters.COSINES`.
        transform: (d, d) of embeddings, before their lengths become 1.
        centres: (K, d) of the cells.
        groups: (K,) which of the groups, from 0 on, that are compared at once a cell is in.
    """

    cosine: str
    transform: Tensor
    centres: Tensor
    groups: Ints

    def save(self, uri: str) -> None:
        """Write them, for :func:`load_cells`."""
        content = io.BytesIO()
        transform, centres = self.transform.numpy(), self.centres.numpy()
        np.savez(content, cosine=self.cosine, transform=transform, centres=centres, groups=self.groups)
        storage.write_atomically(uri, content.getvalue())

    def nearest(self, white: Halves) -> Ints:
        """(m, k) the cells nearest to each direction, the nearest first; k is :data:`NEAREST`, or all cells."""
        k = min(NEAREST, len(self.centres))
        parts = [(some @ self.centres.T).topk(k, 1).indices.numpy() for some in _blocks(white)]
        return np.concatenate([np.empty((0, k), np.int64), *parts])


@functools.lru_cache(maxsize=1)
def load_cells(uri: str) -> Cells:
    """What :meth:`Cells.save` wrote; the last is remembered, since many tasks of a worker need it."""
    with np.load(io.BytesIO(storage.read_bytes(uri))) as kept:
        transform, centres = (torch.from_numpy(kept[name]) for name in ("transform", "centres"))
        return Cells(str(kept["cosine"]), transform, centres, kept["groups"])


def fit_cells(sample: Halves, rows: int, cosine: str | None) -> Cells:
    """Sqrt(5 n) cells, by spherical k-means, of n = ``rows`` rows, of which these are a ``sample``; one of few.

    The same every time.

    Args:
        cosine: None: :func:`telling`.
    """
    width = sample.shape[1]
    cosine = cosine or telling(sample)
    transform = whitening(_blocks(sample)) if cosine == WHITENED else torch.eye(width)
    white = directions(sample, transform)
    cells = round((NEAREST * rows) ** 0.5) if rows > ALL_PAIRS else 1  # assigning rows costs as much as comparing them
    fitted = Cells(cosine, transform, _centres(white, cells), np.zeros(cells, np.int64))
    share = np.bincount(fitted.nearest(white)[:, 0], minlength=cells) / max(1, len(white))
    groups = _groups(fitted.centres.numpy(), share * rows, _GROUP_BYTES / (2 * width))
    return Cells(cosine, transform, fitted.centres, groups)


def telling(sample: Halves) -> str:
    """Plain, where 99 of 100 pairs of images have a cosine below :data:`LEAST`, so that more of one says something.

    Whitened otherwise: of a network that makes images of a class alike, or has no negative numbers.
    """
    rows = np.random.default_rng(0).permutation(len(sample))[: 2 * _COMPARED]
    drawn = directions(sample[rows], torch.eye(sample.shape[1])).astype(np.float32)
    cosines = drawn[::2] @ drawn[1::2].T
    return PLAIN if cosines.size and np.quantile(cosines, 0.99) < LEAST else WHITENED


def directions(vectors: Halves, transform: Tensor) -> Halves:
    """(m, d) x' / |x'| with x' = ``transform`` x; zero where x is."""
    turned = np.empty_like(vectors)
    for number, some in enumerate(_blocks(vectors)):
        turned[number * _AT_ONCE : (number + 1) * _AT_ONCE] = (
            torch.nn.functional.normalize(some @ transform).half().numpy()
        )
    return turned


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
    values, vectors = torch.linalg.eigh(moment / rows)
    mean = values.mean().clamp_min(1e-12)
    share = min(1.0, max(_LEAST_SHRINKAGE, _SHRINKAGE * len(values) / rows))
    scale = ((1 - share) * values.clamp_min(0) + share * mean).rsqrt()
    return (vectors * scale @ vectors.T).float()


def _blocks(vectors: Halves) -> Iterator[Tensor]:
    for start in range(0, len(vectors), _AT_ONCE):
        yield torch.from_numpy(vectors[start : start + _AT_ONCE].astype(np.float32))


def _centres(white: Halves, cells: int) -> Tensor:
    """(K, d) by spherical k-means on a sample."""
    draw = np.random.default_rng(0)
    chosen = np.sort(draw.choice(len(white), min(len(white), max(cells, _PER_CENTRE * cells)), replace=False))
    sample = torch.from_numpy(white[chosen].astype(np.float32))
    centres = sample[torch.from_numpy(draw.choice(len(sample), cells, replace=False))]
    for _ in range(_ROUNDS if cells > 1 else 0):
        place = torch.cat([(some @ centres.T).argmax(1) for some in sample.split(_AT_ONCE)])
        sums = torch.zeros_like(centres).index_add_(0, place, sample)
        empty = sums.square().sum(1) < 1e-12
        centres = torch.where(empty[:, None], centres, torch.nn.functional.normalize(sums))
    return centres


def _groups(centres: npt.NDArray[np.float32], rows: Floats, most: float) -> Ints:
    """(K,) cells that lie together: all, halved across the line between two far apart until ``most`` rows are left."""
    groups = np.zeros(len(centres), np.int64)
    waiting, number = [np.arange(len(centres))], 0
    while waiting:
        cells = waiting.pop()
        if len(cells) == 1 or rows[cells].sum() <= most:
            groups[cells] = number
            number += 1
            continue
        own = centres[cells]
        far = own[np.argmin(own @ own.mean(0))]
        order = cells[np.argsort(own @ (far - own[np.argmin(own @ far)]), kind="stable")]
        half = np.searchsorted(np.cumsum(rows[order]), rows[order].sum() / 2)
        half = min(max(int(half), 1), len(order) - 1)
        waiting += [order[:half], order[half:]]
    return groups
