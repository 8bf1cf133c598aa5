"""The images as contenders read them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from regrad.benchmarks.peers.material import write_material
from regrad.errors import UsageError
from tests.shards import digits, write_parquet


def test_every_form_has_the_same_images(tmp_path: Path) -> None:
    material = write_material(tmp_path / "in", [write_parquet(tmp_path / "a.parquet", digits(10))], 7, 3)
    assert material.names == tuple(f"{number:05}.png" for number in range(7))
    with Image.open(tmp_path / "in/images/00004.png") as kept:
        pixels = np.asarray(kept.convert("L"))
    (tmp_path / "own.png").write_bytes(digits(10)[4][1])
    with Image.open(tmp_path / "own.png") as own:
        assert (pixels == np.asarray(own)).all()
    rows = [pyarrow.parquet.read_table(path).to_pydict() for path in sorted((tmp_path / "in/rows").iterdir())]
    assert [name for part in rows for name in part["id"]] == list(material.names)
    assert [Path(uri).name for part in rows for uri in part["uri"]] == list(material.names)
    assert [len(part["id"]) for part in rows] == [3, 3, 1]
    tars = []
    for path in sorted((tmp_path / "in/tars").iterdir()):
        with tarfile.open(path) as tar:
            tars.append(tar.getnames())
    assert tars == [list(material.names[:3]), list(material.names[3:6]), ["00006.png"]]


def test_a_truncated_image_is_so_in_every_form(tmp_path: Path) -> None:
    material = write_material(tmp_path / "in", [write_parquet(tmp_path / "a.parquet", digits(10))], 4, 2)
    whole = (tmp_path / "in/images/00003.png").stat().st_size
    material.truncate("00003.png")
    content = (tmp_path / "in/images/00003.png").read_bytes()
    assert len(content) == whole // 2
    with tarfile.open(tmp_path / "in/tars/00001.tar") as tar:
        member = tar.extractfile("00003.png")
        assert member is not None
        assert member.read() == content


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="10 images, where 11 are scored"):
        write_material(tmp_path / "in", [write_parquet(tmp_path / "a.parquet", digits(10))], 11, 3)
