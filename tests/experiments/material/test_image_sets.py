"""The images of each set: the same ones in the same order, more of them when asked for, none of what is left out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from regrad.experiments.material import image_sets
from regrad.experiments.material.image_sets import SHARD_ROWS
from regrad.experiments.material.packs import Packs
from tests.conftest import png
from tests.data import data_path


def write_pack(folder: Path, name: str, labels: Sequence[int]) -> None:
    ids = [f"{name}/{row:04}" for row in range(len(labels))]
    columns = {"id": ids, "image": [png(row) for row in range(len(labels))], "label": pa.array(labels, pa.int32())}
    pa.parquet.write_table(pa.table(columns), folder / name)


def packs(data: Path) -> Packs:
    return Packs(str(data), str(data / "cache"))


def rows(shards: Sequence[str]) -> list[dict[str, object]]:
    return [row for shard in shards for row in pyarrow.parquet.read_table(shard).to_pylist()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    write_pack(folder, "mnist-test.parquet", [row % 10 for row in range(130)])
    write_pack(folder, "omniglot-evaluation.parquet", range(60))
    write_pack(folder, "cifar10-test.parquet", [row % 10 for row in range(100)])
    return folder


def test_more_images_are_the_same_ones_and_then_others(data: Path, tmp_path: Path) -> None:
    few = image_sets.shards("mnist", packs(data), str(tmp_path / "images"), SHARD_ROWS)
    times = [Path(shard).stat().st_mtime_ns for shard in few]
    more = image_sets.shards("mnist", packs(data), str(tmp_path / "images"), 1000)
    assert more[: len(few)] == few
    assert [Path(shard).stat().st_mtime_ns for shard in few] == times  # what was scored of them stays valid
    ids = [row["id"] for row in rows(more)]
    assert len(set(ids)) == len(ids) == 130
    assert ids != sorted(map(str, ids))
    assert ids == [row["id"] for row in rows(image_sets.shards("mnist", packs(data), str(tmp_path / "again"), 130))]


def test_classes_that_both_sets_have_are_left_out(data: Path, tmp_path: Path) -> None:
    found = rows(image_sets.shards("cifar10-not-cifar100", packs(data), str(tmp_path / "images"), 1000))
    assert {row["label"] for row in found} == {0, 2, 3, 4, 5, 6, 7, 8}
    assert len(found) == 80


def test_drawings_are_inverted_and_nothing_else_is_changed(data: Path, tmp_path: Path) -> None:
    original = {row["id"]: row["image"] for row in rows([str(data / "omniglot-evaluation.parquet")])}
    for row in rows(image_sets.shards("omniglot", packs(data), str(tmp_path / "images"), 60)):
        before, after = (np.asarray(Image.open(io.BytesIO(x))) for x in (original[row["id"]], row["image"]))  # type: ignore[arg-type]
        assert np.array_equal(before, 255 - after)


@pytest.mark.data
def test_the_names_of_classes_that_are_left_out_are_known(tmp_path: Path) -> None:
    folder = data_path("tinyimagenet-val.parquet").parent
    for name, classes in (("tinyimagenet-not-cifar10", 181), ("tinyimagenet-not-cifar100", 141)):
        labels = {row["label"] for row in rows(image_sets.shards(name, packs(folder), str(tmp_path), 10_000))}
        assert len(labels) == classes == 200 - len(image_sets.IMAGE_SETS[name].without)
