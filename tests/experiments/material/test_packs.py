"""Packs of a data folder, and those that torchvision's datasets become."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torchvision.datasets
from PIL import Image

from regrad import UsageError
from regrad.errors import RegradError
from regrad.experiments.material.packs import DOWNLOADS, SPLITS, Packs, Split, encode, shuffled
from tests.conftest import png


class Numbers:
    """Stands for torchvision.datasets.SVHN: no test downloads anything."""

    def __init__(self, root: str, download: bool, split: str) -> None:
        assert download
        assert Path(root).is_absolute()
        self.split = split

    def __getitem__(self, row: int) -> tuple[Image.Image, Any]:
        if row == 7:
            raise IndexError
        return Image.new("RGB", (32, 32), (row, 0, 99 if self.split == "train" else 0)), row


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "mnist-test.parquet").write_bytes(encode([("a", png(0), 3)]))
    packs = Packs(str(tmp_path), str(tmp_path / "cache"))
    assert packs.rows("mnist-test.parquet") == [("a", png(0), 3)]
    assert packs.has("mnist-test.parquet")
    assert not packs.has("svhn-test.parquet")
    with pytest.raises(UsageError, match=r"no svhn-test\.parquet here; .*--download fetches it"):
        packs.find("svhn-test.parquet")
    for download in (False, True):
        packs = Packs(str(tmp_path), str(tmp_path / "cache"), download)
        assert not packs.has("lsun-test.parquet")
        with pytest.raises(UsageError, match=r"no weights/a\.safetensors here; --data names the folder of the packs$"):
            packs.find("weights/a.safetensors")


@pytest.mark.parametrize("remote", [False, True])
def test_a_download_becomes_a_pack_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: bool) -> None:
    monkeypatch.setattr(torchvision.datasets, "SVHN", Numbers)
    cache = "memory://cache" if remote else str(tmp_path / "cache")
    packs = Packs(str(tmp_path / "data"), cache, download=True)
    assert packs.has("svhn-train.parquet")
    found = packs.rows("svhn-train.parquet")
    assert [(key, label) for key, _, label in found] == [(f"svhn/{row:05}", row) for row in range(7)]
    assert Image.open(io.BytesIO(found[3][1])).getpixel((0, 0)) == (3, 0, 99)
    monkeypatch.setattr(torchvision.datasets, "SVHN", None)  # the second time it is there
    assert packs.rows("svhn-train.parquet") == found
    assert Packs(str(tmp_path / "data"), cache).has("svhn-train.parquet")


@pytest.mark.parametrize("error", [OSError("<urlopen error no name>"), RuntimeError("Tried a mirror:\nno name\n")])
def test_a_download_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(root: str, **arguments: Any) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "SVHN", fail)
    packs = Packs(str(tmp_path / "data"), str(tmp_path / "cache"), download=True)
    with pytest.raises(
        RegradError, match=r"^svhn-test\.parquet: torchvision could not download SVHN \(.*no name>?\); "
    ):
        packs.find("svhn-test.parquet")
    assert not list((tmp_path / "cache").glob("*.parquet"))


def test_the_parts_of_a_pack_have_each_of_its_images_once_and_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [(f"svhn/{row:02}", png(row), row) for row in range(20)]
    (tmp_path / "svhn-test.parquet").write_bytes(encode(whole))
    monkeypatch.setitem(SPLITS, "svhn-held.parquet", Split("svhn-test.parquet", stop=6))
    monkeypatch.setitem(SPLITS, "svhn-pool.parquet", Split("svhn-test.parquet", start=6))
    source = Packs(str(tmp_path), str(tmp_path / "cache"))
    assert source.has("svhn-pool.parquet")
    held, pool = (source.rows(f"svhn-{part}.parquet") for part in ("held", "pool"))
    assert (len(held), len(pool)) == (6, 14)
    assert sorted([*held, *pool]) == whole
    assert held != whole[:6]
    assert [*held, *pool] == shuffled(whole)
    (tmp_path / "svhn-test.parquet").unlink()
    assert source.rows("svhn-pool.parquet") == pool
    elsewhere = Packs(str(tmp_path), str(tmp_path / "empty"))
    assert not elsewhere.has("svhn-pool.parquet")
    with pytest.raises(UsageError, match=r"no svhn-test\.parquet here"):
        elsewhere.find("svhn-pool.parquet")


def test_svhn_is_as_many_images_whether_they_are_at_hand_or_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DOWNLOADS["svhn-test.parquet"].rows == 10_000
    monkeypatch.setitem(DOWNLOADS, "svhn-test.parquet", replace(DOWNLOADS["svhn-test.parquet"], rows=5))
    monkeypatch.setattr(torchvision.datasets, "SVHN", Numbers)
    source = Packs(str(tmp_path / "data"), str(tmp_path / "cache"), download=True)
    assert [label for _, _, label in source.rows("svhn-test.parquet")] == [0, 1, 2, 3, 4]
