from pathlib import Path

import fsspec

from regrad.reading.folder import FolderReader, list_folder
from regrad.reading.formats import fetch_images
from tests.services import Bucket
from tests.shards import digits, write_folder


def test_a_folder_is_read_in_order(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", digits(50))
    files = list_folder(folder).files
    assert list(files) == sorted(name for name, *_ in digits(50))
    samples = list(FolderReader(folder, files=files[10:], labels=range(40), first=10).rows(12, 45))
    assert [sample.row for sample in samples] == list(range(12, 45))
    images = {name: image for name, image, _ in digits(50)}
    assert all(sample.id == files[sample.row or 0] and sample.image == images[sample.id] for sample in samples)
    assert [sample.label for sample in samples] == list(range(2, 35))


def test_a_file_that_has_gone_is_one_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "images", digits(3))
    first, second = FolderReader(folder, files=[digits()[0][0], "gone.png"]).rows()
    assert first.image
    assert "gone since it was listed" in str(second.error)


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
