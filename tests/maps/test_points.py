"""Which images are on a map, against the rule written down image by image."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regrad.maps.points import EACH, KEY, choose_points, fair_shares, row_keys
from regrad.runs import scored
from regrad.runs.scored import Run

RNG = np.random.default_rng(3)
CLASSES = 10


class Rows:
    """A run in memory, in pieces of a few rows."""

    def __init__(self, rows: pa.Table, piece: int):
        self.rows, self.piece, self.model = rows, piece, {"classes": CLASSES}

    def tables(self, columns: list[str]) -> Any:
        for start in range(0, len(self.rows), self.piece):
            yield self.rows.slice(start, self.piece).select(columns)


def made_up(count: int, holes: bool = True) -> pa.Table:
    """Rows of a few sources; class 9 is rare, some predictions are null and some scores NaN."""
    scores = RNG.normal(0, 1, count).round(2)  # with ties
    predictions = [9 if place % 97 == 5 else int(RNG.integers(0, 9)) for place in range(count)]
    if holes:
        scores[::31] = math.nan
        predictions = [None if place % 53 == 7 else each for place, each in enumerate(predictions)]
    return pa.table(
        {
            "id": [f"i{place}" for place in range(count)],
            "source": [f"s{place % 3}" for place in range(count)],
            "row": [place // 3 for place in range(count)],
            "prediction": pa.array(predictions, pa.int32()),
            "score": scores,
        }
    )


def by_the_rule(rows: pa.Table, threshold: float, places: int) -> tuple[set[str], int, int]:
    """Ids, and how many for their score and as some of their class: one image after the other."""
    images = [row | {"key": int(key)} for row, key in zip(rows.to_pylist(), row_keys(rows), strict=True)]
    sure = [image for image in images if not math.isnan(image["score"])]
    flagged = sum(image["score"] > threshold for image in sure)
    many = min(max(flagged, places // 4), places // 2)
    chosen = [image["id"] for image in sorted(sure, key=lambda image: (-image["score"], image["key"]))[:many]]
    uncertain = len(chosen)
    classes = {
        number: sorted((image for image in images if image["prediction"] == number), key=lambda image: image["key"])
        for number in {image["prediction"] for image in images}
    }
    each = max(1, min(EACH, places // 4 // CLASSES))
    smallest = sorted(classes, key=lambda number: (len(classes[number]), CLASSES if number is None else number))
    some = [image["id"] for number in smallest for image in classes[number][:each]]
    rare = [name for name in some if name not in chosen][: places // 4]
    chosen += rare
    others = [image["id"] for image in sorted(images, key=lambda image: image["key"]) if image["id"] not in chosen]
    return {*chosen, *others[: places - len(chosen)]}, uncertain, len(rare)


@pytest.mark.parametrize(("places", "threshold"), [(40, 1.9), (200, 1.9), (200, 0.5), (200, 99.0), (900, 1.0)])
def test_points_are_those_of_the_rule(places: int, threshold: float) -> None:
    rows = made_up(700)
    points = choose_points(Rows(rows, 90), "score", threshold, places)  # type: ignore[arg-type]
    ids, uncertain, rare = by_the_rule(rows, threshold, places)
    assert set(points.rows["id"].to_pylist()) == ids
    assert (points.images, points.uncertain, points.rare) == (700, uncertain, rare)
    assert len(points.rows) == min(places, 700)


def test_all_flagged_are_in_where_there_is_room_and_of_each_class_some() -> None:
    rows = made_up(3000, holes=False)
    points = choose_points(Rows(rows, 500), "score", 1.5, 900)  # type: ignore[arg-type]
    chosen = points.rows.to_pylist()
    flagged = {row["id"] for row in rows.to_pylist() if row["score"] > 1.5}
    assert 0 < len(flagged) < 450
    assert flagged <= {row["id"] for row in chosen}
    assert min(Counter(row["prediction"] for row in chosen).values()) >= EACH


def test_the_order_of_the_rows_does_not_matter_and_equal_rows_of_other_sources_differ() -> None:
    rows = made_up(600, holes=False)
    one, other = (
        choose_points(Rows(table, piece), "score", 1.0, 150).rows  # type: ignore[arg-type]
        for table, piece in ((rows, 600), (rows.take(RNG.permutation(600)), 77))
    )
    assert one.equals(other)
    assert one["source"].to_pylist() == sorted(one["source"].to_pylist())
    assert len(np.unique(row_keys(rows))) == 600
    assert KEY in one.column_names


def test_shares_are_fair() -> None:
    assert fair_shares([1_000_000, 7, 0, 2_000_000], 20_000) == [9996, 7, 0, 9997]
    assert sum(fair_shares([10**6] * 7, 20_000)) == 20_000


def test_a_run_of_files_is_read_as_rows_are(write_run: Any) -> None:
    run: Run = scored.load_run("known", write_run("known", {"regrad": RNG.normal(0, 1, 90)}))
    points = choose_points(run, "regrad", 1.0, 40)
    assert points.images == 90
    assert len(points.rows) == 40
