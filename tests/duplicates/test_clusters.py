"""Clusters against a search through the graph, one link at a time."""

from __future__ import annotations

import numpy as np
import pytest

from regrad.duplicates.clusters import Clusters, Links, clusters_of


def links(*pairs: tuple[int, int], similarity: float | list[float] = 1.0) -> Links:
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return Links(first, second, np.broadcast_to(np.float32(similarity), len(pairs)))


def searched(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """The connected components, each in ascending order, by their first row."""
    beside: dict[int, set[int]] = {}
    for a, b in pairs:
        beside.setdefault(a, set()).add(b)
        beside.setdefault(b, set()).add(a)
    seen: set[int] = set()
    components = []
    for row in sorted(beside):
        waiting, component = [row], set()
        while waiting:
            at = waiting.pop()
            if at not in seen:
                seen.add(at)
                component.add(at)
                waiting += beside[at]
        if component:
            components.append(sorted(component))
    return components


def listed(clusters: Clusters) -> list[list[int]]:
    return [clusters.rows[clusters.cluster == number].tolist() for number in range(len(clusters.sizes))]


@pytest.mark.parametrize("seed", range(5))
def test_they_are_the_components_of_all_links_together(seed: int) -> None:
    draw = np.random.default_rng(seed)
    exact, near = ([(int(a), int(b)) for a, b in draw.integers(0, 400, (120, 2)) if a != b] for _ in range(2))
    clusters = clusters_of([links(*exact), links(*near, similarity=0.5)])
    wanted = searched(exact + near)
    assert listed(clusters) == wanted
    assert clusters.sizes.tolist() == [len(rows) for rows in wanted]
    assert clusters.rows[clusters.first].tolist() == [rows[0] for rows in wanted]
    assert {*clusters.rows[clusters.kind == 0].tolist()} == {row for pair in exact for row in pair}
    assert {*clusters.similarity[clusters.kind == 1].tolist()} == {0.5}


def test_a_row_has_its_highest_similarity() -> None:
    clusters = clusters_of([links((7, 9)), Links.none(), links((9, 4), (4, 2), similarity=[0.8, 0.9])])
    assert clusters.rows.tolist() == [2, 4, 7, 9]
    np.testing.assert_allclose(clusters.similarity, [0.9, 0.9, 1, 1])
    assert clusters.kind.tolist() == [2, 2, 0, 0]


def test_what_stands_for_a_cluster_is_the_first_by_the_order_that_is_told() -> None:
    clusters = clusters_of([links((7, 9), (1, 2)), links((9, 4))], ranks=lambda rows: -rows)
    assert listed(clusters) == [[9, 7, 4], [2, 1]]
    assert clusters.rows[clusters.first].tolist() == [9, 2]


def test_no_links_are_no_clusters() -> None:
    clusters = clusters_of([Links.none(), Links.none()])
    assert [len(clusters.rows), len(clusters.sizes), len(clusters.first)] == [0, 0, 0]
