"""The choice of images to label: by score, shared out over classes, spread over features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from regrad.errors import UsageError
from regrad.handover.labelled import Labelled
from regrad.runs import scored
from regrad.select import choose

RNG = np.random.default_rng(0)
NOBODY = Labelled()


@pytest.fixture
def run(write_run: Any) -> scored.Run:
    predictions = [0] * 100 + [1] * 15 + [2] * 5
    return scored.load_run("run", write_run("digits", {"regrad": RNG.normal(0, 1, 120)}, predictions=predictions))


def scores(run: scored.Run) -> np.ndarray:
    return pyarrow.parquet.read_table(f"{run.output}/scores").sort_by("row")["regrad"].to_numpy()


def chosen(rows: pa.Table) -> list[int]:
    return rows["row"].to_pylist()


def test_the_highest_scores(run: scored.Run) -> None:
    rows = choose.choose(choose.candidates(run, "regrad", NOBODY, 10, False), False)
    assert chosen(rows) == np.argsort(-scores(run))[:10].tolist()
    assert rows["rank"].to_pylist() == list(range(1, 11))


def test_labelled_images_are_left_out(run: scored.Run, tmp_path: Path) -> None:
    first = choose.choose(choose.candidates(run, "regrad", NOBODY, 10, False), False)
    ids = first["id"].to_pylist()
    expected = np.argsort(-scores(run))[10:20].tolist()
    pyarrow.csv.write_csv(pa.table({"id": ids, "label": [3] * 10}), tmp_path / "by-id.csv")
    pyarrow.parquet.write_table(first.select(["id", "source"]), tmp_path / "by-both.parquet")
    for name in ("by-id.csv", "by-both.parquet"):
        labelled = Labelled([str(tmp_path / name)])
        assert len(labelled) == 10
        rows = choose.choose(choose.candidates(run, "regrad", labelled, 10, False), False)
        assert chosen(rows) == expected
    # The same ids of another source are other images.
    other = pa.table({"id": ids, "source": ["elsewhere"] * 10})
    pyarrow.parquet.write_table(other, tmp_path / "other.parquet")
    rows = choose.candidates(run, "regrad", Labelled([str(tmp_path / "other.parquet")]), 10, False)
    assert chosen(rows) == np.argsort(-scores(run))[:10].tolist()


def test_a_balanced_budget(run: scored.Run) -> None:
    rows = choose.choose(choose.candidates(run, "regrad", NOBODY, 30, True), True)
    predictions = rows["prediction"].to_numpy()
    assert np.bincount(predictions).tolist() == [13, 12, 5]
    held = scores(run)
    zeros = [row for row in chosen(rows) if row < 100]
    assert zeros == np.argsort(-held[:100])[:13].tolist()
    assert rows["score"].to_pylist() == sorted(rows["score"].to_pylist(), reverse=True)


@pytest.mark.parametrize(
    ("there", "budget", "expected"),
    [
        ([5, 0, 100, 2], 12, [5, 0, 5, 2]),
        ([10, 10, 10], 10, [4, 3, 3]),
        ([1, 1], 10, [1, 1]),
        ([3, 9, 9], 2, [1, 1, 0]),
        ([0, 7], 7, [0, 7]),
    ],
)
def test_quotas(there: list[int], budget: int, expected: list[int]) -> None:
    found = choose.quotas(np.array(there), budget)
    assert found.sum() == min(budget, sum(there))
    assert found.tolist() == expected


def test_k_center_takes_what_is_farthest() -> None:
    features = np.array([[0.0], [0.1], [10.0], [10.1], [4.0]])
    assert choose.k_center(features, 3).tolist() == [0, 3, 4]
    assert sorted(choose.k_center(np.zeros((4, 2)), 4).tolist()) == [0, 1, 2, 3]


def test_k_center_is_at_most_twice_as_far_as_need_be() -> None:
    features = RNG.normal(size=(14, 2))
    distances = np.linalg.norm(features[:, None] - features, axis=2)

    def radius(centers: Any) -> float:
        return float(distances[:, list(centers)].min(1).max())

    import itertools

    best = min(radius(centers) for centers in itertools.combinations(range(14), 3))
    assert radius(choose.k_center(features, 3)) <= 2 * best + 1e-12


@pytest.mark.parametrize("diversity", ["k-center", "k-means++"])
def test_a_diverse_choice_sees_every_cluster(run: scored.Run, diversity: str) -> None:
    rows = choose.candidates(run, "regrad", NOBODY, 4, False, pool=10)
    assert len(rows) == 40
    cluster = np.arange(40) % 4
    features = RNG.normal(0, 0.01, (40, 3)) + 10 * np.eye(4)[cluster][:, :3]
    picked = choose.choose(rows, False, diversity, features, seed=3)
    places = [rows["row"].to_pylist().index(row) for row in chosen(picked)]
    assert sorted(cluster[places]) == [0, 1, 2, 3]
    again = choose.choose(rows, False, diversity, features, seed=3)
    assert chosen(again) == chosen(picked)


def test_images_that_are_all_alike_can_be_spread(run: scored.Run) -> None:
    rows = choose.candidates(run, "regrad", NOBODY, 4, False, pool=3)
    for diversity in ("k-center", "k-means++"):
        picked = choose.choose(rows, False, diversity, np.ones((12, 5)))
        assert len(set(chosen(picked))) == 4


def test_csv_and_parquet_hold_the_same(run: scored.Run, tmp_path: Path) -> None:
    rows = choose.choose(choose.candidates(run, "regrad", NOBODY, 5, False), False)
    places = choose.write_choice(rows, "regrad", str(tmp_path / "chosen.csv"))
    assert places == (str(tmp_path / "chosen.csv"), str(tmp_path / "chosen.parquet"))
    text, binary = pyarrow.csv.read_csv(places[0]), pyarrow.parquet.read_table(places[1])
    assert text.column_names == ["rank", "id", "source", "row", "prediction", "confidence", "regrad"]
    assert text.column_names == binary.column_names
    assert text["regrad"].to_pylist() == binary["regrad"].to_pylist()


def test_nothing_left_to_choose_is_refused(run: scored.Run, tmp_path: Path) -> None:
    everything = pyarrow.parquet.read_table(f"{run.output}/scores", columns=["id"])
    pyarrow.parquet.write_table(everything, tmp_path / "all.parquet")
    with pytest.raises(UsageError, match="nothing to choose from"):
        choose.candidates(run, "regrad", Labelled([str(tmp_path / "all.parquet")]), 3, False)


def test_labels_to_check_are_those_that_are_least_probable(write_run: Any) -> None:
    p = RNG.dirichlet(np.ones(10), 90)
    labels = [None if row % 3 == 0 else 17 if row == 1 else row % 10 for row in range(90)]
    held = scored.load_run("run", write_run("run", {"regrad": np.ones(90)}, labels=labels, probabilities=p))
    rows = choose.choose(choose.candidates(held, "nll", NOBODY, 12, False, more=("label",)), False)
    own = {row: p[row, label] for row, label in enumerate(labels) if label is not None and label < 10}
    assert chosen(rows) == sorted(own, key=lambda row: own[row])[:12]
    assert rows["label"].to_pylist() == [labels[row] for row in chosen(rows)]
    assert rows["score"].to_pylist() == pytest.approx([-np.log(own[row]) for row in chosen(rows)])
    every = choose.choose(choose.candidates(held, "nll", NOBODY, 90, True), True)
    assert sorted(chosen(every)) == sorted(own)  # and none without a label, however large the budget
    plain = scored.load_run("plain", write_run("plain", {"regrad": np.ones(9)}))
    with pytest.raises(UsageError, match="plain: every image is in --labelled or has no nll; there is nothing"):
        choose.candidates(plain, "nll", NOBODY, 3, False)
