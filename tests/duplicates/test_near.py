"""Near pairs against all cosines in float64, and what cells miss of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from regrad.duplicates import near
from regrad.duplicates.hashes import Lookalikes
from regrad.errors import UsageError

Array = np.ndarray[Any, Any]


def planted(rows: int, width: int, copies: int, noise: float, seed: int = 0) -> tuple[Array, Array]:
    """Embeddings in classes, the last ``copies`` of them those of rows before with noise; and these rows."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(20, width))
    vectors = np.maximum(3 * centres[draw.integers(0, 20, rows)] + draw.normal(size=(rows, width)), 0)
    origins = draw.choice(rows - copies, copies, replace=False)
    vectors[rows - copies :] = vectors[origins] * (1 + noise * draw.normal(size=(copies, width)))
    return vectors.astype(np.float16), origins


def reference(vectors: Array, threshold: float) -> set[tuple[int, int]]:
    """By the formula, all pairs at once."""
    x = vectors.astype(np.float64)
    rows, width = x.shape
    values, directions = np.linalg.eigh(x.T @ x / rows)
    share = min(1.0, max(1e-3, 0.1 * width / rows))
    white = x @ directions / np.sqrt((1 - share) * values + share * values.mean())
    white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)
    first, second = np.nonzero(np.triu(white @ white.T >= threshold, 1))
    return {*zip(first.tolist(), second.tolist(), strict=True)}


def pairs(vectors: Array, threshold: float, among: Array | None = None) -> set[tuple[int, int]]:
    looking, links = near.near_links(vectors, np.arange(len(vectors)) if among is None else among, threshold)
    assert not len(looking.first)
    assert (links.similarity >= threshold - 1e-6).all()
    assert (links.similarity <= 1).all()
    return {(min(a, b), max(a, b)) for a, b in zip(links.first.tolist(), links.second.tolist(), strict=True)}


@pytest.mark.parametrize("threshold", [0.6, 0.9])
def test_all_pairs_are_those_of_the_formula(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_BLOCK", 70)
    monkeypatch.setattr(near, "_OTHERS", 110)
    vectors, _ = planted(500, 24, 60, 0.1)
    # What is within rounding of the threshold may be on either side.
    surely, perhaps = reference(vectors, threshold + 2e-3), reference(vectors, threshold - 2e-3)
    found = pairs(vectors, threshold)
    assert len(surely) >= 40
    assert surely <= found <= perhaps


def test_cells_miss_few(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, origins = planted(4000, 32, 400, 0.1)
    wanted = pairs(vectors, 0.9)
    assert {*zip(origins.tolist(), range(3600, 4000), strict=True)} & wanted
    monkeypatch.setattr(near, "ALL_PAIRS", 100)
    compared: list[int] = []
    real = near._alike
    monkeypatch.setattr(near, "_alike", lambda w, a, b, t: compared.append(len(a) * len(b)) or real(w, a, b, t))
    found = pairs(vectors, 0.9)
    assert found <= wanted
    assert len(found) >= 0.98 * len(wanted) > 300
    assert sum(compared) < 4000 * 4000 / 10


def test_rows_that_are_not_asked_for_are_not_compared() -> None:
    vectors, origins = planted(300, 16, 30, 0.02)
    among = np.arange(0, 300, 2)
    found = pairs(vectors, 0.9, among)
    assert found
    assert all(a % 2 == b % 2 == 0 for a, b in found)
    assert {(int(a), 270 + b) for b, a in enumerate(origins) if a % 2 == b % 2 == 0} <= found


def test_of_pictures_that_look_alike_those_stay_that_do_so_surely_or_are_alike_to_the_network() -> None:
    vectors, origins = planted(300, 16, 30, 0.02)
    first, second = np.array([*origins, 5, 5]), np.array([*range(270, 300), 6, 7])
    cosines = dict.fromkeys(zip(first.tolist(), second.tolist(), strict=True), -1.0)
    links = near.near_links(vectors, np.arange(300), 0.01)[1]
    cosines |= dict(zip(zip(links.first.tolist(), links.second.tolist(), strict=True), links.similarity, strict=True))
    assert max(cosines[5, 6], cosines[5, 7]) < near.LEAST
    sure = np.arange(32) == 30
    seen, _ = near.near_links(vectors, np.arange(300), 0.99, Lookalikes(first, second, sure))
    assert seen.first.tolist() == [*origins, 5]
    assert seen.second.tolist() == [*range(270, 300), 6]
    wanted = [max(0.0, cosines[pair]) for pair in zip(seen.first.tolist(), seen.second.tolist(), strict=True)]
    np.testing.assert_allclose(seen.similarity, wanted, atol=2e-2)


def test_directions_in_which_images_differ_little_count_as_much() -> None:
    """Two kinds of images, far apart: within one, all cosines are high, and only whitened ones tell who is alike."""
    draw = np.random.default_rng(1)
    kinds = np.eye(16)[:2][draw.integers(0, 2, 400)] * 50
    vectors = (kinds + np.abs(draw.normal(size=(400, 16)))).astype(np.float16)
    vectors[399] = vectors[0] * np.float16(1.5)
    unit = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    assert np.median(unit @ unit[0]) > 0.9 or np.quantile(unit @ unit[0], 0.6) > 0.99
    assert pairs(vectors, 0.97) == {(0, 399)}


def test_the_plain_cosine_is_that_of_the_embeddings() -> None:
    vectors, _ = planted(300, 16, 30, 0.1)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    links = near.near_links(vectors, np.arange(300), 0.9, cosine="plain")[1]
    np.testing.assert_allclose(links.similarity, (unit[links.first] * unit[links.second]).sum(1), atol=1e-3)
    wanted = int((np.triu(unit @ unit.T, 1) >= 0.901).sum())
    assert (
        len({*zip(np.minimum(links.first, links.second), np.maximum(links.first, links.second), strict=True)}) >= wanted
    )
    assert wanted > len(pairs(vectors, 0.9))


def test_of_a_few_rows_the_plain_cosine_counts() -> None:
    vectors = np.array([[1, 0.01, 0, 0], [1, 0, 0.01, 0], [0, 0, 0, 1], [0] * 4], np.float16)
    torch.testing.assert_close(near.whitening([torch.eye(64)[:1], torch.eye(64)[1:2]]), torch.eye(64) * 64**0.5)
    assert pairs(vectors, 0.5) == {(0, 1)}


def test_no_rows_and_rows_of_nothing_are_alike_to_none() -> None:
    assert pairs(np.zeros((5, 4), np.float16), 0.5) == set()
    assert pairs(np.zeros((0, 4), np.float16), 0.5) == set()


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MOST_LINKS", 50)
    vectors, _ = planted(300, 16, 100, 0.01)
    with pytest.raises(
        UsageError, match=r"^more than 50 pairs of images are as alike as --threshold 0.9 asks; raise it"
    ):
        pairs(vectors, 0.9)
