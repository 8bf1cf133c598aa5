"""What tasks read of a piece and lay down: every row once in each group of its cells, wherever its unit has moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from regrad.duplicates import cells, spread
from regrad.duplicates.clusters import PLAIN
from regrad.duplicates.gathered import Gathered, Stretch
from regrad.ledger import fold, merge
from regrad.ledger.rows import Place, Rows
from tests.duplicates.embedded import embedded

VECTORS = np.random.default_rng(0).normal(size=(90, 6)).astype(np.float16)
HASHES = np.random.default_rng(1).integers(0, 2**63, 90, dtype=np.uint64)


@pytest.fixture
def piece(tmp_path: Path) -> Stretch:
    """Of 90 rows in 9 units."""
    with Gathered([embedded(tmp_path / "run", VECTORS, HASHES, 10)], True) as rows:
        (piece,) = rows.pieces
        return piece


class Backwards(Rows):
    """As if they had been moved to another place: the last units come first."""

    def placed(self, columns: Sequence[str] | None = None) -> Iterator[tuple[list[Place], pa.Table]]:
        yield from [*super().placed(columns)][::-1]


@pytest.mark.parametrize("since", ["nothing", "merged", "moved"])
def test_rows_that_are_asked_for_are_read(piece: Stretch, since: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has become of their units since they were numbered."""
    wanted = np.array([0, 11, 12, 57, 89])
    task = piece.task(wanted)
    if since == "merged":
        fold.fold(piece.run.output, lambda: None, at_least=1)
        assert merge.merge(piece.run.output, lambda: None, 2, ["embeddings"]) == 9
    if since == "moved":
        monkeypatch.setattr(spread, "Rows", Backwards)
    drawn = spread.draw_sample(task)
    assert drawn["rows"].tolist() == wanted.tolist()
    assert np.array_equal(drawn["vectors"], VECTORS[wanted])


def test_each_row_is_once_in_each_group_of_its_cells(
    piece: Stretch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "ALL_PAIRS", 10)
    monkeypatch.setattr(cells, "_GROUP_BYTES", 20 * 2 * 6)
    monkeypatch.setattr(spread, "_AT_ONCE", 7)
    fitted = cells.fit_cells(VECTORS, 90, PLAIN)
    fitted.save(str(tmp_path / "cells"))
    wanted, shown = np.arange(5, 90), np.array([6, 70])
    more = {"cells": str(tmp_path / "cells"), "piece": str(tmp_path / "piece"), "shown": shown}
    answer = spread.lay_down({**piece.task(wanted), **more})
    entries = np.fromfile(tmp_path / "piece", spread.entry_type(6, cells.NEAREST))
    white = cells.directions(VECTORS, fitted.transform)
    nearest = fitted.nearest(white)
    assert len(answer["ends"]) == fitted.groups.max() + 1 > 2
    start = 0
    for group, stop in enumerate(answer["ends"]):
        there = [row for row in wanted if group in fitted.groups[nearest[row]]]
        assert entries["row"][start:stop].tolist() == there
        start = stop
    assert start == len(entries)
    rows = entries["row"]
    assert np.array_equal(entries["hash"], HASHES[rows])
    assert np.array_equal(entries["vector"], white[rows])
    assert np.array_equal(entries["cells"], nearest[rows])
    assert answer["shown"].tolist() == shown.tolist()
    assert np.array_equal(answer["vectors"], white[shown])
