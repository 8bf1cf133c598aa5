"""The page of clusters: which are shown, with their own pictures, and nothing of the data as markup."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from regrad.duplicates.find import DUPLICATES_SCHEMA
from regrad.duplicates.sheet import choose_clusters, picture_sheet
from regrad.pages.thumbnails import Fetch
from regrad.runs.scored import Run
from tests.shards import png

SIZES = {0: 2, 1: 12, 2: 3, 3: 2}
SIMILARITIES = {0: 0.97, 1: 1.0, 2: 0.91, 3: 0.95}


def made() -> pa.Table:
    """Clusters of these sizes; row r of a run is a picture that is r bright."""
    rows = []
    for cluster, size in SIZES.items():
        for place in range(size):
            similarity = SIMILARITIES[cluster] if place == size - 1 else 1.0
            known = {
                "run": "ab"[place % 2],
                "source": "in.parquet",
                "row": 20 * cluster + place,
                "id": f"<b>{cluster}-{place}",
            }
            rows.append(
                {"cluster": cluster, "representative": not place, **known, "kind": "near", "similarity": similarity}
            )
    return pa.Table.from_pylist(rows, schema=DUPLICATES_SCHEMA)


def fetch(source: str, rows: Mapping[int, str]) -> Iterator[tuple[int, bytes]]:
    assert source == "in.parquet"
    yield from ((row, png(np.full((8, 8), row))) for row in rows)


def test_the_least_alike_and_the_largest_are_shown() -> None:
    sheets = choose_clusters(made(), 2)
    shown = {title: [cluster.rows[0]["cluster"] for cluster in clusters] for title, clusters in sheets.items()}
    assert shown == {"The least alike": [2, 3], "The largest": [1, 2]}
    (largest, _) = sheets["The largest"]
    assert (largest.images, [row["row"] for row in largest.rows]) == (12, [*range(20, 28)])
    assert choose_clusters(made(), 0) == choose_clusters(made().slice(0, 0), 3) == {}


@pytest.mark.parametrize("most", [0, 3])
def test_the_page_has_each_image_with_its_own_picture(most: int) -> None:
    reads: dict[str, tuple[Run, Fetch]] = {name: (Run(name, name, {}, ("entropy",)), fetch) for name in "ab"}
    page = picture_sheet({"clusters": 4}, ["19 images", "a line"], choose_clusters(made(), most), reads, 20.0)
    assert "<b>2-0" not in page
    found: list[tuple[Any, ...]] = re.findall(r'<img src="data:image/webp;base64,([^"]+)".*? alt="([^"]+): near"', page)
    assert len(found) == (0 if not most else (3 + 2 + 2) + (8 + 3 + 2))
    assert ("No image is there twice" in page) == (not most)
    for content, name in found:
        cluster, place = map(int, re.findall(r"\d+", name.replace("&lt;b&gt;", "")))
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L"))
        assert pixels.tolist() == np.full((8, 8), 20 * cluster + place).tolist()
