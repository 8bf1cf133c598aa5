"""The labelled rows of a run with logits: which, in which order, and how many at most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regrad import table
from regrad.errors import UsageError
from regrad.ledger.rows import Rows
from regrad.runs import labelled, scored
from regrad.runs.labelled import read_labelled

RNG = np.random.default_rng(0)


def run(write_run: Any, labels: list[int | None], name: str = "run", **more: Any) -> scored.Run:
    count = len(labels)
    logits = np.arange(10 * count, dtype=np.float32).reshape(count, 10)
    return scored.load_run(name, write_run(name, {"entropy": RNG.random(count)}, labels, logits=logits, **more))


def test_rows_keep_their_labels_and_logits(write_run: Any) -> None:
    labels = [None if row % 4 == 0 else 99 if row % 4 == 1 else row % 10 for row in range(200)]
    read = read_labelled(run(write_run, labels))
    wanted = [row for row, label in enumerate(labels) if label is not None and label < 10]
    assert read.images == len(read.labels) == len(wanted) == 100
    rows = (read.logits[:, 0] / 10).astype(int)
    np.testing.assert_array_equal(read.logits, rows[:, None] * 10 + np.arange(10))
    assert sorted(rows) == wanted
    assert [labels[row] for row in rows] == read.labels.tolist()
    # Drawn at random: neither half is of one end of the run, whatever order the rows are in.
    assert 80 < rows[:50].mean() < 120
    assert rows.tolist() != wanted


def test_of_too_many_the_same_ones_are_held(write_run: Any) -> None:
    held = run(write_run, [row % 10 for row in range(120)])
    whole = read_labelled(held)
    some = read_labelled(held, numbers=10 * 17)
    assert (some.images, len(some.labels)) == (120, 17)
    np.testing.assert_array_equal(some.logits, whole.logits[:17])
    assert len(read_labelled(held, numbers=0).labels) == 1


def test_it_never_holds_many_more(write_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows there are, and in parts of any size."""
    held = run(write_run, [row % 10 for row in range(400)])
    whole = read_labelled(held)
    rows = pa.concat_tables(Rows(held.output).tables())
    monkeypatch.setattr(Rows, "tables", lambda self, columns: (rows.slice(at, 7) for at in range(0, 400, 7)))
    taken: list[int] = []
    first = labelled._first
    monkeypatch.setattr(
        labelled, "_first", lambda tables, count: (taken.append(sum(map(len, tables))), first(tables, count))[1]
    )
    some = read_labelled(held, numbers=10 * 40)
    np.testing.assert_array_equal(some.logits, whole.logits[:40])
    assert some.images == 400
    assert max(taken) <= 1.25 * 40 + 7
    assert len(taken) < 15


def test_what_has_no_labels_or_logits_is_refused(write_run: Any) -> None:
    with pytest.raises(UsageError, match="run: no image has a label that is one of the model's 10 classes"):
        read_labelled(run(write_run, [None, 10, -1]))
    plain = write_run("plain", {"entropy": [0.5, 0.6, 0.7]}, [1, 2, 3])
    assert "logits" not in table.read(plain).column_names
    with pytest.raises(UsageError, match="plain: the run kept no logits; score the images again with --logits"):
        read_labelled(scored.load_run("plain", plain))
