import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec

from regrad.reading.folder import FolderReader, Located, list_folder, locate
from regrad.reading.formats import Source, fetch_images
from regrad.reading.inputs import list_sources
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


def test_images_of_a_folder_are_fetched_back_by_their_ids(tmp_path: Path) -> None:
    """The row says when a file came in, not where it is."""
    source = write_folder(tmp_path / "images", digits(20))
    images = {name: image for name, image, _ in digits(20)}
    (first, *_), (second, *_) = digits(2)
    assert dict(fetch_images(source, {7: second, 900: first, 3: "0/gone.png"})) == {
        7: images[second],
        900: images[first],
    }


def test_a_file_whose_name_is_no_utf_8_is_fetched_back(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "images", digits(3))
    for name, (_, image, _) in zip((b"caf\xe9.png", b"a\\b.png"), digits(2), strict=True):
        with open(os.path.join(os.fsencode(source), name), "wb") as file:
            file.write(image)
    ids = {row: sample.id or "" for row, sample in enumerate(list_sources([source])[0].open().rows())}
    assert {"caf\\udce9.png", "a\\b.png"} < set(ids.values())
    found = {ids[row]: image for row, image in fetch_images(source, ids)}
    assert [found["caf\\udce9.png"], found["a\\b.png"]] == [image for _, image, _ in digits(2)]
    assert len(found) == 5


def test_images_of_a_folder_in_a_bucket_are_fetched_by_any_name(tmp_path: Path, bucket: Bucket) -> None:
    rows = [(f"{label}/[{number}] a*b.png", image, label) for number, (_, image, label) in enumerate(digits(40))]
    source = bucket.put(write_folder(tmp_path / "images", rows), "images")
    ids = dict(enumerate(name for name, *_ in rows))
    assert dict(fetch_images(source, ids)) == {row: image for row, (_, image, _) in enumerate(rows)}
    fsspec.filesystem("s3").rm_file(f"{source}/{ids[3]}")
    assert sorted(dict(fetch_images(source, {39: ids[39], 3: ids[3]}))) == [39]


def record(source: Source, start: int, stop: int) -> dict[str, Any]:
    return {
        "start": start,
        "stop": stop,
        "identity": source.identity_of(start, stop),
        "names": source.files[start:stop],
    }


def test_where_the_files_of_a_unit_are_now(tmp_path: Path) -> None:
    rows = [(f"{number:04}.png", *row) for number, (_, *row) in enumerate(digits(20))]
    folder = write_folder(tmp_path / "images", rows[::2])
    before = list_folder(folder)
    records = [record(before, start, start + 5) for start in (0, 5)]
    read: list[Any] = []

    def read_ids(some: Sequence[Mapping[str, Any]]) -> list[Sequence[str] | None]:
        read.extend(some)
        return [record["names"] for record in some]

    assert [(list(unit.places), unit.current) for unit in locate(before, records, read_ids)] == [
        ([0, 1, 2, 3, 4], True),
        ([5, 6, 7, 8, 9], True),
    ]
    assert read == []  # they are where they were
    write_folder(tmp_path / "images", rows[1::2])
    grown = list_folder(folder)
    found = locate(grown, records, read_ids)
    assert all(unit.current for unit in found)
    assert [[grown.files[place] for place in unit.places] for unit in found] == [
        list(before.files[:5]),
        list(before.files[5:]),
    ]
    (tmp_path / "images" / before.files[6]).unlink()
    (tmp_path / "images" / before.files[1]).write_bytes(b"another")
    fewer = list_folder(folder)
    changed, lost = locate(fewer, records, read_ids)
    assert not changed.current
    assert [fewer.files[place] for place in changed.places] == list(before.files[:5])
    assert not lost.current
    assert [fewer.files[place] for place in lost.places] == [before.files[5], *before.files[7:]]
    assert locate(fewer, records[:1], lambda some: [None]) == [Located([], False)]
