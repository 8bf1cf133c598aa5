"""Members of tars one after the other, beside what tarfile itself reads of the sound ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from regrad.reading.samples import Shard
from regrad.reading.tars.members import (
    CorruptEnd,
    CorruptTar,
    NoEndMark,
    Window,
    is_compressed,
    last_name,
    members,
    open_archive,
)
from tests.bad_shards import zstandard

NAMES = ["a.png", "b.cls", "c/d.json"]


def tar(names: list[str], size: int = 700) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(size)))
    return file.getvalue()


def read(path: Path, content: bytes, seek: bool) -> list[str]:
    path.write_bytes(content)
    names = []
    with Shard(str(path)) as shard, open_archive(shard, seek) as (archive, end):
        for member in members(archive, end):
            names.append(member.name)
    return names


@pytest.mark.parametrize("seek", [False, True])
def test_members_are_those_that_tarfile_reads(tmp_path: Path, seek: bool) -> None:
    content = tar(NAMES)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert read(tmp_path / "x.tar", content, seek) == archive.getnames() == NAMES


@pytest.mark.parametrize(
    "pack", [gzip.compress, bz2.compress, lzma.compress, zstandard], ids=["gzip", "bzip2", "xz", "zstd"]
)
def test_a_compressed_tar_is_known_by_its_first_bytes(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    assert read(tmp_path / "x.tar", pack(tar(NAMES)), seek=True) == NAMES
    with Shard(str(tmp_path / "x.tar")) as shard:
        assert is_compressed(shard)
    (tmp_path / "plain.tar").write_bytes(tar(["BZh9.png", *NAMES]))  # which begins like one
    with Shard(str(tmp_path / "plain.tar")) as shard:
        assert not is_compressed(shard)


@pytest.mark.parametrize("seek", [False, True])
def test_a_tar_that_follows_the_end_mark_is_read_too(tmp_path: Path, seek: bool) -> None:
    joined = tar(NAMES) + tar(["later.png"])
    assert read(tmp_path / "x.tar", joined, seek) == [*NAMES, "later.png"]
    with tarfile.open(fileobj=io.BytesIO(joined)) as archive:
        assert archive.getnames() == NAMES  # what would have been lost


MEMBER = 512 + 1024  # header and two blocks, of 700 bytes


@pytest.mark.parametrize("seek", [False, True])
@pytest.mark.parametrize(
    ("spoil", "kind", "words", "count"),
    [
        (lambda whole: whole[: 3 * MEMBER], NoEndMark, "end mark", 3),
        (lambda whole: whole[: 2 * MEMBER - 600], CorruptTar, "ends inside a member", 2),
        (lambda whole: whole + b"no tar at all".ljust(512, b"!"), CorruptEnd, "after its end mark is no tar", 3),
        (lambda whole: whole[:MEMBER] + b"!" * 512 + whole[MEMBER + 512 :], CorruptTar, "damaged member header", 1),
    ],
    ids=["no end mark", "cut short", "something behind", "a damaged header"],
)
def test_what_is_wrong_is_said_after_the_members_before_it(
    tmp_path: Path, spoil: Callable[[bytes], bytes], kind: type[CorruptTar], words: str, count: int, seek: bool
) -> None:
    file, names = tmp_path / "x.tar", []
    file.write_bytes(spoil(tar(NAMES)))
    with Shard(str(file)) as shard, open_archive(shard, seek) as (archive, end):
        given = members(archive, end)
        names = [next(given).name for _ in range(count)]
        with pytest.raises(kind, match=words):
            next(given)
    assert names == NAMES[:count]


def test_the_last_name_is_found_from_the_end_alone(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar(NAMES))
    with Shard(str(tmp_path / "x.tar")) as shard:
        assert last_name(shard) == "c/d.json"
    (tmp_path / "large.tar").write_bytes(tar(["large.png"], 2**18))
    with Shard(str(tmp_path / "large.tar")) as shard:
        assert last_name(shard) is None  # its header lies before the last bytes


def test_a_window_does_not_hide_that_its_tar_has_become_shorter(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar(NAMES))) as archive:
        places = [member.offset for member in archive]
    for end, raised in ((places[-1], False), (places[-2], True)):  # as it was, and cut between two members since
        (tmp_path / "x.tar").write_bytes(tar(NAMES)[:end])
        with Shard(str(tmp_path / "x.tar")) as shard:
            window = Window(shard, places[0], places[-1])
            with open_archive(window, seek=False) as (archive, size):
                found = members(archive, size)
                assert [next(found).name for _ in places[:-2]] == NAMES[:-2]
                if raised:
                    with pytest.raises(NoEndMark):
                        next(found)
                else:
                    assert [member.name for member in found] == [NAMES[-2]]
