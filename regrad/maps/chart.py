"""The map of some runs: their points, where these lie, and what the page's script draws it from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from regrad import storage
from regrad.cli import say
from regrad.formatting import class_name, count
from regrad.maps import layout
from regrad.maps.points import KEY, SCORE, Points, choose_points, fair_shares, row_keys
from regrad.pages.markup import short
from regrad.pages.thumbnails import Thumbnail
from regrad.runs.embeddings import embedding_rows
from regrad.runs.scored import Floats, Ints, Run, floats
from regrad.runs.threshold import Threshold

PICTURES = 400  # of points that have one on the page, about
STEPS = 4095  # places are told in so many steps of the longer side
_CELLS = 14  # along each side, for pictures from everywhere on the map
_LONGEST = 300  # characters of an id; longer ones have their middle left out


@dataclass(frozen=True)
class Chart:
    """A map.

    Attributes:
        numbers: what report.json and audit.json tell of it.
        rows: one for each point: ``set`` (its place in the ``sets`` of ``numbers``), ``id, source, row, prediction,
            score, flagged``, and ``x`` and ``y`` from 0 to :data:`STEPS`; None where there is nothing to draw.
        pictured: (p,) the places in ``rows`` of those that are to have a picture.
    """

    numbers: dict[str, Any]
    rows: pa.Table | None
    pictured: Ints

    @property
    def wanted(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each set that are to have a picture, in the order of ``pictured``."""
        sets: dict[str, list[dict[str, Any]]] = {each["name"]: [] for each in self.numbers["sets"]}
        if self.rows is not None:
            names = list(sets)
            for row in self.rows.take(pa.array(self.pictured)).select(["set", "id", "source", "row"]).to_pylist():
                sets[names[row["set"]]].append(row)
        return sets


def draw_map(runs: Sequence[Run], rule: Threshold, most: int) -> Chart | None:
    """The map of those of ``runs`` that kept embeddings; None where none did, or ``most`` is 0.

    Args:
        runs: of one network, each under a name of its own.
        rule: the score that points are chosen by, and above which value an image is flagged.
        most: how many points it has at most, a fair share for every run.

    Raises:
        RegradError: the storage refused or failed.
    """
    seen = [run for run in runs if run.model.get("embedding_width")]
    if not seen or not most:
        return None
    numbers: dict[str, Any] = {
        "score": rule.score,
        "images": 0,
        "points": 0,
        "sets": [],
        "without": [run.name for run in runs if run not in seen],
        "problem": None,
    }
    if not layout.installed():
        return Chart(numbers | {"problem": f"its library is not installed: {layout.INSTALL}"}, None, np.empty(0, int))
    shares = fair_shares([run.count_rows() for run in seen], most)
    tables, vectors = [], []
    for place, (run, share) in enumerate(zip(seen, shares, strict=True)):
        points = choose_points(run, rule.score, rule.value, share)
        rows, own = _with_vectors(points.rows, run)
        vectors.append(own)
        tables.append(rows.append_column("set", pa.array(np.full(len(rows), place), pa.int32())))
        numbers["sets"].append(_told(run, points, len(rows)))
    rows = pa.concat_tables(tables)
    numbers |= {key: sum(each[key] for each in numbers["sets"]) for key in ("images", "points")}
    if len(rows) < layout.FEWEST:
        problem = f"{len(rows)} images with an embedding are too few, {layout.FEWEST} would do"
        return Chart(numbers | {"problem": problem}, None, np.empty(0, int))
    say(f"laying out a map of {count(len(rows), 'image')}")
    places = _in_steps(layout.lay_out(np.concatenate(vectors)))
    for axis, column in zip("xy", places.T, strict=True):
        rows = rows.append_column(axis, pa.array(column))
    rows = rows.append_column("flagged", pa.array(floats(rows[SCORE]) > rule.value))
    return Chart(numbers, rows.drop_columns([KEY]), _pictured(rows, len(seen)))


def page_values(
    chart: Chart | None,
    names: Sequence[str] | None,
    thumbnails: Mapping[str, Sequence[Thumbnail]],
    title: Callable[[str], str] = str,
) -> tuple[list[str], dict[str, Any]]:
    """What a page with ``chart`` has besides: its scripts, and what they find in ``data``; see :func:`figure`."""
    if chart is None or chart.rows is None:
        return [], {}
    return ["map.js"], {"map": figure(chart, names, thumbnails, title)}


def figure(
    chart: Chart,
    names: Sequence[str] | None,
    thumbnails: Mapping[str, Sequence[Thumbnail]],
    title: Callable[[str], str] = str,
) -> dict[str, Any]:
    """What the page's script draws from: columns of the points, as JSON has them, and names by number.

    Args:
        names: of the classes.
        thumbnails: set -> a picture for each of its rows in ``chart.wanted``; empty for a page without.
        title: what the page calls a set.
    """
    rows = chart.rows
    assert rows is not None
    sources = rows["source"].combine_chunks().dictionary_encode()
    classes = rows["prediction"].combine_chunks().dictionary_encode()
    return {
        "name": chart.numbers["score"],
        "sets": [short(title(each["name"]), 60) for each in chart.numbers["sets"]],
        "classes": [short(class_name(index, names), 60) for index in classes.dictionary.to_pylist()],
        "sources": storage.published(sources.dictionary.to_pylist()),
        "class": [-1 if place is None else place for place in classes.indices.to_pylist()],
        "source": sources.indices.to_pylist(),
        "id": [short(storage.mask(text), _LONGEST) for text in rows["id"].to_pylist()],
        "score": [float(f"{value:.4g}") if math.isfinite(value) else None for value in floats(rows[SCORE])],
        "flagged": [int(value) for value in rows["flagged"].to_pylist()],
        **{name: rows[name].to_pylist() for name in ("set", "row", "x", "y")},
        "pictures": _pictures(chart, thumbnails),
    }


def _pictures(chart: Chart, thumbnails: Mapping[str, Sequence[Thumbnail]]) -> dict[str, Any]:
    """Place of a point -> its picture: address, width and height."""
    assert chart.rows is not None
    made = {each["name"]: iter(thumbnails.get(each["name"], ())) for each in chart.numbers["sets"]}
    sets = chart.rows["set"].to_pylist()
    pictures = {}
    for place in chart.pictured.tolist():
        picture = next(made[chart.numbers["sets"][sets[place]]["name"]], Thumbnail(None))
        if picture.uri:
            pictures[str(place)] = [picture.uri, picture.width, picture.height]
    return pictures


def _told(run: Run, points: Points, placed: int) -> dict[str, Any]:
    return {
        "name": run.name,
        "images": points.images,
        "points": placed,
        "uncertain": points.uncertain,
        "rare": points.rare,
        "drawn": len(points.rows) - points.uncertain - points.rare,
    }


def _with_vectors(rows: pa.Table, run: Run) -> tuple[pa.Table, np.ndarray]:
    """Those of the chosen ``rows`` that have an embedding of finite numbers, and (m, d) these.

    The embeddings are read once as a stream; memory: those of the rows.
    """
    keys = rows[KEY].to_numpy()
    order = np.argsort(keys)
    vectors = np.full((len(rows), run.model["embedding_width"]), np.nan, np.float16)
    if len(rows):
        for some in embedding_rows(run):
            theirs = row_keys(some.known_by)
            at = order[np.minimum(np.searchsorted(keys, theirs, sorter=order), len(rows) - 1)]
            same = keys[at] == theirs
            vectors[at[same]] = some.vectors[same]
    there = np.isfinite(vectors).all(1)
    return rows.filter(pa.array(there)), vectors[there]


def _in_steps(places: Floats) -> Ints:
    """(n, 2) whole numbers from 0 to :data:`STEPS`, with the proportions of ``places``."""
    from_zero = places - places.min(0)
    steps: Ints = np.rint(from_zero * (STEPS / max(from_zero.max(), 1e-12))).astype(np.int64)
    return steps


def _pictured(rows: pa.Table, sets: int) -> Ints:
    """The places of the most uncertain rows of each set, and of one row in each cell of a grid."""
    scores, keys, of = floats(rows[SCORE]), rows[KEY].to_numpy(), rows["set"].to_numpy()
    order = np.lexsort([keys, np.where(np.isnan(scores), np.inf, -scores)])
    uncertain = [order[of[order] == place][: PICTURES // 2 // sets] for place in range(sets)]
    x, y = (rows[axis].to_numpy() * _CELLS // (STEPS + 1) for axis in "xy")
    by_key = np.argsort(keys)
    spread = by_key[np.unique((x * _CELLS + y)[by_key], return_index=True)[1]]
    return np.unique(np.concatenate([*uncertain, spread]))
