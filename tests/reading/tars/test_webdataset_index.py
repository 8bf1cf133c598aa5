"""DALI's index is believed where it is that of the tar, and then it tells what the headers tell."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from regrad.reading.inputs import list_sources
from regrad.reading.samples import Shard
from regrad.reading.tars import survey as surveys
from regrad.reading.tars import webdataset_index
from tests.services import Bucket
from tests.shards import digits, write_members, write_tar


def index(uri: str, version: str = "v1.2") -> list[str]:
    """The lines that wds2idx writes of a tar."""
    samples: dict[str, list[str]] = {}
    with tarfile.open(uri) as archive:
        for member in archive:
            key, _, extension = member.name.partition(".")
            samples.setdefault(key, []).append(f"{extension} {member.offset_data} {member.size} {member.name}")
    return [f"{version} {len(samples)}", *(" ".join(members) for members in samples.values())]


@pytest.fixture
def tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(surveys, "SMALL_BYTES", 0)
    monkeypatch.setattr(surveys, "MARK_ROWS", 3)
    return write_tar(tmp_path / "a.tar", digits(30))


def read(uri: str) -> list[tarfile.TarInfo] | None:
    with Shard(uri) as shard:
        return webdataset_index.indexed_members(shard)


def put(tar: str, lines: list[str]) -> None:
    Path(tar).with_suffix(".idx").write_text("\n".join(lines) + "\n")


def test_it_tells_what_the_headers_tell(tar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (by_headers,) = list_sources([tar])
    put(tar, index(tar))
    monkeypatch.setattr(surveys, "open_archive", None)  # the headers are not gone through
    (by_index,) = list_sources([tar])
    assert by_index == by_headers
    assert len(by_index.marks) == 10


def test_a_stores_tar_with_an_index_is_cut(tar: str, bucket: Bucket) -> None:
    put(tar, index(tar))
    (local,) = list_sources([tar])
    uri = bucket.put(tar, "a.tar")
    (without,) = list_sources([uri])
    bucket.put(str(Path(tar).with_suffix(".idx")), "a.idx")
    (with_index,) = list_sources([uri])
    assert (without.rows, without.whole) == (None, surveys.NO_INDEX)
    assert (with_index.rows, with_index.marks) == (local.rows, local.marks)


DOUBTFUL: dict[str, Callable[[list[str]], list[str]]] = {
    "nothing": lambda lines: [],
    "another version": lambda lines: ["v1.1 30", *lines[1:]],
    "another number of samples": lambda lines: ["v1.2 29", *lines[1:]],
    "a sample left out": lambda lines: ["v1.2 29", *lines[1:10], *lines[11:]],
    "the last left out": lambda lines: ["v1.2 29", *lines[1:-1]],
    "a name with a space": lambda lines: [line.replace("0003", "00 03") for line in lines],
    "no number": lambda lines: [line.replace(" 1 ", " one ", 1) for line in lines],
    "another name": lambda lines: [line.replace("0029", "0030") for line in lines],
    "a place moved": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
}


@pytest.mark.parametrize("change", DOUBTFUL)
def test_a_doubtful_one_is_not_believed(tar: str, change: str) -> None:
    lines = DOUBTFUL[change](index(tar))
    assert lines != index(tar)
    put(tar, lines)
    assert read(tar) is None


def test_one_that_is_older_than_the_tar_is_not_believed(tar: str) -> None:
    put(tar, index(tar))
    assert read(tar)
    write_members(Path(tar), [(f"{n:04}.jpg", bytes(700)) for n in range(90)])
    assert read(tar) is None


def test_that_of_a_tar_without_an_end_is_not_believed(tar: str) -> None:
    put(tar, index(tar))
    Path(tar).write_bytes(Path(tar).read_bytes().rstrip(b"\0"))
    content = Path(tar).read_bytes()
    Path(tar).write_bytes(content + bytes(-len(content) % 512))
    assert read(tar) is None


def test_there_is_none(tar: str) -> None:
    assert read(tar) is None
