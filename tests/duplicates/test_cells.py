"""Directions and cells: the whitening of few rows, what is written and read back, groups that lie together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from regrad.duplicates import cells
from regrad.duplicates.clusters import PLAIN, WHITENED


def sample(rows: int = 600, width: int = 12) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    draw = np.random.default_rng(0)
    return (draw.normal(size=(8, width))[draw.integers(0, 8, rows)] + draw.normal(size=(rows, width)) / 5).astype("f2")


def test_of_few_rows_there_is_no_telling_of_directions() -> None:
    torch.testing.assert_close(cells.whitening([torch.eye(64)[:1], torch.eye(64)[1:2]]), torch.eye(64) * 64**0.5)


def test_whitened_moments_are_those_of_the_identity() -> None:
    x = torch.from_numpy(sample(4000).astype(np.float32))
    white = x @ cells.whitening(x.split(300))
    torch.testing.assert_close(white.T @ white / 4000, torch.eye(12), atol=0.1, rtol=0)


def test_directions_have_a_length_of_one_or_none() -> None:
    vectors = np.array([[3, 4], [0, 0], [0, -2]], np.float16)
    wanted = np.array([[0.6, 0.8], [0, 0], [0, -1]], np.float16)
    np.testing.assert_allclose(cells.directions(vectors, torch.eye(2)), wanted, atol=1e-3)


def test_the_plain_cosine_is_for_embeddings_that_tell_images_apart() -> None:
    draw = np.random.default_rng(0)
    apart = draw.normal(size=(400, 32)).astype(np.float16)
    copies = np.concatenate([apart, np.repeat(apart[:4], 10, 0)])  # few of all pairs, though each is there often
    classes = np.concatenate([apart, np.abs(apart[:, :1]) * 9 + 1], 1).astype(np.float16)  # that one number tells
    of_classes = cells.directions(classes, torch.eye(33)).astype(np.float32)
    assert np.median(of_classes @ of_classes.T) < cells.LEAST  # of one in a hundred it is higher all the same
    assert [cells.telling(some) for some in (apart, copies, classes)] == [PLAIN, PLAIN, WHITENED]
    assert [cells.telling(apart[:rows]) for rows in (0, 1)] == [WHITENED, WHITENED]
    assert [cells.fit_cells(some, 400, None).cosine for some in (apart, classes)] == [PLAIN, WHITENED]


def test_up_to_a_number_of_rows_there_is_one_cell() -> None:
    fitted = cells.fit_cells(sample(), cells.ALL_PAIRS, PLAIN)
    assert len(fitted.centres) == 1
    assert fitted.nearest(sample()).tolist() == [[0]] * 600
    assert len(cells.fit_cells(sample(), cells.ALL_PAIRS + 1, PLAIN).centres) == round((5 * 30_001) ** 0.5)


def test_the_nearest_are_nearest_and_groups_are_no_larger_than_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "ALL_PAIRS", 100)
    monkeypatch.setattr(cells, "_GROUP_BYTES", 200 * 2 * 12)
    fitted = cells.fit_cells(sample(), 600, WHITENED)
    white = cells.directions(sample(), fitted.transform)
    nearest = fitted.nearest(white)
    cosines = white.astype(np.float64) @ fitted.centres.numpy().T
    assert nearest.shape == (600, cells.NEAREST)
    np.testing.assert_allclose(
        np.take_along_axis(cosines, nearest, 1), -np.sort(-cosines, 1)[:, : cells.NEAREST], atol=1e-5
    )
    groups = fitted.groups
    own = np.bincount(groups[nearest[:, 0]], minlength=groups.max() + 1)
    assert own.max() <= 200
    assert 3 <= len(own) <= 8
    drawn = np.random.default_rng(0).permutation(groups)  # as large, of cells from anywhere
    copies, of_drawn = (sum(len({*row}) for row in some[nearest].tolist()) for some in (groups, drawn))
    assert copies < 0.8 * of_drawn
    fitted.save(str(tmp_path / "cells"))
    again = cells.load_cells(str(tmp_path / "cells"))
    assert again.cosine == fitted.cosine == WHITENED
    assert again.groups.tolist() == groups.tolist()
    assert torch.equal(again.centres, fitted.centres)
    assert torch.equal(again.transform, fitted.transform)
