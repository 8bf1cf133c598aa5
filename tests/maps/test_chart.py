"""The map of runs: each point at the place of its own embedding, with its own picture; no secret is told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from regrad import storage
from regrad.maps import chart, layout
from regrad.maps.chart import STEPS, draw_map, figure, page_values
from regrad.pages.thumbnails import Thumbnail
from regrad.runs import scored
from regrad.runs.scored import Run
from regrad.runs.threshold import Threshold

RNG = np.random.default_rng(5)
RULE = Threshold("regrad", 1.0, {})
IMAGES = 60
pytestmark = pytest.mark.usefixtures("plain_maps")


def vectors(first: float) -> np.ndarray:
    """(n, 3) embeddings that tell their rows: the first is at ``first``, each of the others a step on."""
    return np.stack([first + np.arange(IMAGES), np.arange(IMAGES) % 7, np.ones(IMAGES)], 1)


@pytest.fixture
def runs(write_run: Any) -> list[Run]:
    """Two runs with embeddings, of which one has an infinite number in the last, and one without."""
    broken = vectors(100)
    broken[-1, 2] = np.inf
    kept = {"known": vectors(0), "new": broken, "old": None}
    loaded = []
    for shift, (name, embeddings) in enumerate(kept.items()):
        scores = {"regrad": RNG.normal(shift, 1, IMAGES)}
        loaded.append(scored.load_run(name, write_run(name, scores, embeddings=embeddings)))
    return loaded


def test_a_point_lies_where_its_own_embedding_is(runs: list[Run]) -> None:
    drawn = draw_map(runs, RULE, 200)
    assert drawn is not None
    assert drawn.rows is not None
    scores = {
        (place, row["row"]): row["regrad"]
        for place, run in enumerate(runs[:2])
        for rows in run.tables(["row", "regrad"])
        for row in rows.to_pylist()
    }
    for point in drawn.rows.to_pylist():
        expected = 100 * point["set"] + point["row"], point["row"] % 7
        assert (point["x"], point["y"]) == tuple(round(STEPS / 158 * number) for number in expected)
        score = scores[point["set"], point["row"]]
        assert (point["score"], point["flagged"]) == (score, score > 1.0)
    told = [(each["name"], each["images"], each["points"]) for each in drawn.numbers["sets"]]
    assert told == [("known", 60, 60), ("new", 60, 59)]  # without the infinite one
    assert (drawn.numbers["images"], drawn.numbers["points"], drawn.numbers["without"]) == (120, 119, ["old"])


def test_sets_share_the_points(runs: list[Run]) -> None:
    drawn = draw_map(runs, RULE, 30)
    assert drawn is not None
    assert [each["points"] for each in drawn.numbers["sets"]] in ([15, 15], [15, 14])


def test_there_may_be_no_map(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw_map(runs[2:], RULE, 200) is None
    assert draw_map(runs, RULE, 0) is None
    few = draw_map(runs[:1], RULE, 10)
    assert few is not None
    assert few.rows is None
    assert few.numbers["problem"] == "10 images with an embedding are too few, 20 would do"
    monkeypatch.setattr(layout, "installed", lambda: False)
    bare = draw_map(runs, RULE, 200)
    assert bare is not None
    assert bare.numbers["problem"] == "its library is not installed: pip install 'regrad[map]'"
    assert (bare.wanted, page_values(bare, None, {}), page_values(None, None, {})) == ({}, ([], {}), ([], {}))


def test_pictures_are_of_the_most_uncertain_and_of_all_parts_of_the_map(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chart, "PICTURES", 20)
    monkeypatch.setattr(chart, "_CELLS", 3)
    drawn = draw_map(runs, RULE, 200)
    assert drawn is not None
    assert drawn.rows is not None
    points = drawn.rows.to_pylist()
    for place in (0, 1):
        own = sorted((at for at in range(119) if points[at]["set"] == place), key=lambda at: -points[at]["score"])
        assert set(own[:5]) <= set(drawn.pictured.tolist())
    cells = [
        {(3 * point["x"] // (STEPS + 1), 3 * point["y"] // (STEPS + 1)) for point in some}
        for some in (points, [points[at] for at in drawn.pictured.tolist()])
    ]
    assert cells[0] == cells[1]
    assert len(drawn.pictured) <= 10 + len(cells[0])


def test_what_a_page_draws_from(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart, "PICTURES", 8)
    drawn = draw_map(runs, RULE, 200)
    assert drawn is not None
    assert drawn.rows is not None
    pictures = {name: [Thumbnail(f"{name}{row['row']}", 8, 8) for row in rows] for name, rows in drawn.wanted.items()}
    pictures["new"][0] = Thumbnail(None, problem="gone")
    hostile = "s3://user:secret@bucket/" + "x" * 1000
    rows = drawn.rows.to_pylist()
    rows[0] |= {"id": hostile, "source": hostile, "prediction": None, "score": float("nan")}
    replaced = chart.Chart(drawn.numbers, drawn.rows.from_pylist(rows, drawn.rows.schema), drawn.pictured)
    told = json.loads(json.dumps(figure(replaced, ["cat"], pictures, str.upper), allow_nan=False))
    assert told["sets"] == ["KNOWN", "NEW"]
    assert set(told["classes"]) == {"cat", *map(str, range(1, 10))}
    assert [told["classes"][at] for at in told["class"][1:4]] == ["1", "2", "3"]
    assert (told["class"][0], told["score"][0], len(told["id"][0])) == (-1, None, 300 - 1)
    assert "secret" not in json.dumps(told)
    assert told["source"][0] != told["source"][1]
    assert told["sources"][told["source"][1]] == storage.mask(rows[1]["source"])
    assert len(told["pictures"]) == len(drawn.pictured) - 1
    for at, (uri, *_) in told["pictures"].items():
        row = rows[int(at)]
        assert uri == f"{drawn.numbers['sets'][row['set']]['name']}{row['row']}"
    assert figure(drawn, None, {})["pictures"] == {}
