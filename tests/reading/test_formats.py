import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from regrad.errors import RegradError
from regrad.reading.formats import FolderReader, fetch_images, list_folder, open_reader
from tests.services import Bucket
from tests.shards import digits, write_folder, write_hugging_face, write_parquet, write_tar


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", digits(50))
    files = list_folder(folder)
    assert files == sorted(name for name, *_ in digits(50))
    samples = list(FolderReader(folder, files[10:], range(40), first=10).rows(12, 45))
    assert [sample.row for sample in samples] == list(range(12, 45))
    images = {name: image for name, image, _ in digits(50)}
    assert all(sample.id == files[sample.row or 0] and sample.image == images[sample.id] for sample in samples)
    assert [sample.label for sample in samples] == list(range(2, 35))


def test_a_file_that_has_gone_is_one_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", digits(3))
    first, second = FolderReader(folder, [digits()[0][0], "gone.png"], ()).rows()
    assert first.image
    assert "gone since it was listed" in str(second.error)


@pytest.mark.parametrize("write", [write_parquet, write_hugging_face, write_tar])
def test_images_are_fetched_back_by_row(tmp_path: Path, write: object) -> None:
    name = "a.tar" if write is write_tar else "a.parquet"
    source = write(tmp_path / name, digits(60))  # type: ignore[operator]
    rows = [55, 3, 21, 22]
    assert dict(fetch_images(source, rows)) == {row: digits()[row][1] for row in rows}
    assert not list(fetch_images(source, [1000]))
    assert not list(fetch_images(source, []))


def test_images_of_a_folder_are_fetched_back_by_row(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "images", digits(20))
    expected = sorted(digits(20))
    assert dict(fetch_images(source, [7, 0, 20])) == {0: expected[0][1], 7: expected[7][1]}


def test_images_of_a_folder_in_a_bucket_are_fetched_by_any_name(tmp_path: Path, bucket: Bucket) -> None:
    rows = [(f"{label}/[{number}] a*b.png", image, label) for number, (_, image, label) in enumerate(digits(40))]
    source = bucket.put(write_folder(tmp_path / "images", rows), "images")
    expected = sorted(rows)
    assert dict(fetch_images(source, range(40))) == {row: image for row, (_, image, _) in enumerate(expected)}
    fsspec.filesystem("s3").rm_file(f"{source}/{expected[3][0]}")
    assert sorted(dict(fetch_images(source, [39, 3]))) == [3]  # one fewer are listed


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_a_source_that_is_gone_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegradError, match=f"{name}: the file is gone"):
        list(fetch_images(str(tmp_path / name), [1]))


def test_every_format_has_a_reader(tmp_path: Path) -> None:
    shards = {"tar": write_tar(tmp_path / "a.tar", digits(3)), "parquet": write_parquet(tmp_path / "b.pq", digits(3))}
    for kind, source in shards.items():
        assert [sample.image for sample in open_reader(source, kind).rows()] == [image for _, image, _ in digits(3)]


def test_reading_needs_no_ray() -> None:
    code = "import sys, regrad.reading.formats, regrad.pipeline.run; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
