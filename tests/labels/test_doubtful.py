"""The doubtful labels of a run against confident learning in plain NumPy, and the list that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from regrad.labels import doubtful
from regrad.labels.doubtful import Doubts
from regrad.metrics.conformal import PValues
from regrad.metrics.wilson import share_interval
from regrad.runs import scored
from regrad.runs.sift import sift
from regrad.runs.survey import Survey
from regrad.runs.threshold import Threshold

RNG = np.random.default_rng(0)
RULE, UNLIKE = Threshold("regrad", 0.8, {}), PValues(np.zeros(1), np.ones(1, np.int64))


def drawn(count: int = 300, wrong: float = 0.15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of ten classes, labels, and which of these were replaced."""
    true = RNG.integers(0, 10, count)
    z = RNG.normal(0, 1, (count, 10)) + 3 * np.eye(10)[true]
    replaced = RNG.random(count) < wrong
    labels = np.where(replaced, (true + RNG.integers(1, 10, count)) % 10, true)
    return np.exp(z) / np.exp(z).sum(1, keepdims=True), labels, replaced


def run_of(write_run: Any, name: str, p: np.ndarray, labels: list[int | None], **more: Any) -> scored.Run:
    scores = {"regrad": RNG.normal(size=len(p))}
    return scored.load_run(name, write_run(name, scores, labels=labels, probabilities=p, **more))


def doubts_of(run: scored.Run, *others: scored.Run, **more: Any) -> Doubts:
    doubts = Doubts(run, [Survey(each, ["regrad"]) for each in (run, *others)], **more)
    sift(run, RULE, 0, True, lambda rows: None, UNLIKE, doubts)
    return doubts


def expected(p: np.ndarray, labels: np.ndarray, t: np.ndarray) -> tuple[int, list[int]]:
    """How many are off the diagonal of the confident joint by their predicted class, and the images by p_y."""
    count = sum(row.argmax() != y and row.max() >= t[row.argmax()] for row, y in zip(p, labels, strict=True))
    own = p[np.arange(len(p)), labels]
    others = np.flatnonzero(p.argmax(1) != labels)
    return count, others[np.argsort(own[others], kind="stable")][:count].tolist()


def test_as_many_as_confident_learning_counts_those_of_the_least_probable_labels(write_run: Any) -> None:
    p, labels, replaced = drawn()
    doubts = doubts_of(run_of(write_run, "run", p, labels.tolist()))
    t = np.array([p[labels == j, j].mean() for j in range(10)])
    count, places = expected(p, labels, t)
    rows = doubts.rows(1000)
    assert [row["row"] for row in rows] == places
    assert [row["self_confidence"] for row in rows] == pytest.approx(p[places, labels[places]].tolist(), rel=1e-9)
    assert [row["row"] for row in doubts.rows(7)] == places[:7]
    told = doubts.numbers()
    assert told is not None
    assert (told["labelled"], told["doubtful"], told["listed"], told["share"]) == (300, count, count, count / 300)
    assert told["interval"] == share_interval(count, 300)
    assert doubts.share == count / 300
    counts: dict[tuple[int, int], int] = {}
    for place in places:
        pair = (int(labels[place]), int(p[place].argmax()))
        counts[pair] = counts.get(pair, 0) + 1
    assert {(pair["label"], pair["prediction"]): pair["images"] for pair in told["pairs"]} == counts
    assert [pair["images"] for pair in told["pairs"]] == sorted(counts.values(), reverse=True)
    assert replaced[places].mean() > 0.8  # it finds what was planted
    assert replaced[places].sum() > 0.6 * replaced.sum()


def test_other_runs_say_how_sure_the_network_is_of_a_class(write_run: Any) -> None:
    p, labels, _ = drawn(60, 0.5)
    known, fine, _ = drawn(500, 0.0)
    run = run_of(write_run, "tonight", p, labels.tolist())
    doubts = doubts_of(run, run_of(write_run, "known", known, fine.tolist()))
    both, all_labels = np.concatenate([p, known]), np.concatenate([labels, fine])
    t = np.array([both[all_labels == j, j].mean() for j in range(10)])
    count, places = expected(p, labels, t)
    assert [row["row"] for row in doubts.rows(100)] == places
    alone = doubts_of(run).numbers()
    assert alone is not None
    assert alone["doubtful"] > count  # labels of which half are wrong make a class look doubtful itself
    assert len(doubts.rows(100)) < 60


def test_a_label_that_is_predicted_is_not_listed_however_improbable_it_is(write_run: Any) -> None:
    p = np.concatenate([np.full((5, 10), 0.1), np.full((20, 10), 0.02) + 0.8 * np.eye(10)[np.arange(20) % 10]])
    p[:5, 3] += 0.01
    p[24] = 0.01
    p[24, [6, 7]] = 0.83, 0.12  # contradicted, and the label more probable than the first five, which are predicted
    labels = [*[3] * 5, *(np.arange(19) % 10).tolist(), 7]
    assert [row["row"] for row in doubts_of(run_of(write_run, "run", p, labels)).rows(9)] == [24]


def test_what_has_no_label_or_one_that_is_no_class_is_not_counted(write_run: Any) -> None:
    p, labels, _ = drawn(120)
    given = [None, 10, -1, *labels.tolist()[3:]]
    doubts = doubts_of(run_of(write_run, "run", p, given))
    t = np.array([p[3:][labels[3:] == j, j].mean() for j in range(10)])
    count, places = expected(p[3:], labels[3:], t)
    told = doubts.numbers()
    assert told is not None
    assert (told["labelled"], told["doubtful"]) == (117, count)
    assert [row["row"] for row in doubts.rows(100)] == [place + 3 for place in places]
    nothing = doubts_of(run_of(write_run, "none", p, [None] * 120))
    assert (nothing.numbers(), nothing.share, nothing.rows(9)) == (None, None, [])


def test_the_list_is_written_twice_and_taken_away_where_there_is_no_label(write_run: Any, tmp_path: Path) -> None:
    p, labels, _ = drawn()
    run = run_of(write_run, "run", p, labels.tolist())
    doubts, few = doubts_of(run), doubts_of(run, listed=4)
    doubts.write(str(tmp_path / "out"))
    binary = pyarrow.parquet.read_table(tmp_path / "out/doubtful.parquet")
    text = pyarrow.csv.read_csv(tmp_path / "out/doubtful.csv")
    assert binary.schema == doubtful.SCHEMA
    assert binary.column_names == text.column_names
    assert binary["id"].to_pylist() == text["id"].to_pylist() == [row["id"] for row in doubts.rows(1000)]
    assert binary["label"].to_pylist() == text["label"].to_pylist()
    few.write(str(tmp_path / "out"))
    assert pyarrow.parquet.read_table(tmp_path / "out/doubtful.parquet").equals(binary.slice(0, 4))
    told = few.numbers()
    assert told is not None
    assert (told["doubtful"], told["listed"]) == (len(binary), 4)
    certain = np.full((20, 10), 0.01) + 0.9 * np.eye(10)[np.arange(20) % 10]
    doubts_of(run_of(write_run, "right", certain, [row % 10 for row in range(20)])).write(str(tmp_path / "out"))
    assert pyarrow.parquet.read_table(tmp_path / "out/doubtful.parquet").num_rows == 0  # an empty list says so
    doubts_of(run_of(write_run, "plain", p, [None] * 300)).write(str(tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []
