"""Links between rows made into clusters, each with one row that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regrad.runs.scored import Bools, Ints

WHITENED, PLAIN = "whitened", "plain"
COSINES = (WHITENED, PLAIN)  # of embeddings, see regrad.duplicates.near

Similarities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Limits:
    """What counts as alike.

    Attributes:
        threshold: the cosine of two embeddings, at least.
        distance: the bits in which two hashes differ, at most.
        cosine: one of :data:`COSINES`; None: which of them tells the images apart, see
            :func:`regrad.duplicates.cells.telling`.
    """

    threshold: float
    distance: int = 0
    cosine: str | None = None


@dataclass(frozen=True)
class Links:
    """Pairs of rows that are alike.

    Attributes:
        first, second: (m,) their numbers.
        similarity: (m,) 1 for the same bytes or pixels, else the cosine.
    """

    first: Ints
    second: Ints
    similarity: Similarities

    def those(self, wanted: Bools) -> Links:
        """The pairs that are ``wanted``: (m,)."""
        return Links(self.first[wanted], self.second[wanted], self.similarity[wanted])

    @classmethod
    def none(cls) -> Links:
        """No pair."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

    @classmethod
    def joined(cls, some: Sequence[Links]) -> Links:
        """All pairs of ``some``."""
        parts = [cls.none(), *some]
        return cls(
            np.concatenate([part.first for part in parts]),
            np.concatenate([part.second for part in parts]),
            np.concatenate([part.similarity for part in parts]),
        )


@dataclass(frozen=True)
class Clusters:
    """Rows that are linked, directly or by way of others: no two clusters have a row in common.

    Attributes:
        rows: (m,) the numbers of the rows, those of a cluster together, in their order.
        cluster: (m,) which cluster each is of, from 0 on, in the order of their first rows.
        kind: (m,) the first of the kinds of links that link it.
        similarity: (m,) the highest to another row of it.
    """

    rows: Ints
    cluster: Ints
    kind: Ints
    similarity: Similarities

    @property
    def first(self) -> Bools:
        """(m,) whether the row stands for its cluster: the first of it."""
        begins: Bools = np.ones(len(self.rows), bool)
        begins[1:] = self.cluster[1:] != self.cluster[:-1]
        return begins

    @property
    def sizes(self) -> Ints:
        """(clusters,) how many rows each has."""
        return np.bincount(self.cluster)


def clusters_of(kinds: Sequence[Links], ranks: Callable[[Ints], Ints] = lambda rows: rows) -> Clusters:
    """The connected components of all links together, in a memory that grows with the links alone.

    Args:
        kinds: the links of each kind, the surest first.
        ranks: gives, of rows by their numbers, the place of each in their order.
    """
    from scipy import sparse
    from scipy.sparse import csgraph

    links = Links.joined(kinds)
    of_kind = np.repeat(np.arange(len(kinds)), [len(each.first) for each in kinds])
    rows, ends = np.unique(np.concatenate([links.first, links.second]), return_inverse=True)
    order = np.argsort(ranks(rows), kind="stable")
    rows, ends = rows[order], np.argsort(order)[ends]
    first, second = ends[: len(links.first)], ends[len(links.first) :]
    graph = sparse.coo_array((np.ones(len(first), bool), (first, second)), shape=(len(rows), len(rows)))
    number, component = csgraph.connected_components(graph, directed=False)
    # Rows are in their order: where a component occurs first is its first row, by which clusters are numbered.
    _, begins = np.unique(component, return_index=True)
    rank = np.empty(number, np.int64)
    rank[np.argsort(begins)] = np.arange(number)
    cluster = rank[component] if len(rows) else np.empty(0, np.int64)
    similarity = np.zeros(len(rows), np.float32)
    kind = np.full(len(rows), len(kinds))
    for end in (first, second):
        np.maximum.at(similarity, end, links.similarity)
        np.minimum.at(kind, end, of_kind)
    order = np.argsort(cluster, kind="stable")
    return Clusters(rows[order], cluster[order], kind[order], similarity[order])
