"""Files too large to write at once: there when they are whole, and never before; folders that go; what is hidden."""

from __future__ import annotations

import errno
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from regrad import storage
from regrad.errors import RegradError, UsageError
from tests.services import Bucket


def write(uri: str, content: bytes, error: Exception | None = None) -> None:
    with storage.writing(uri) as file:
        file.write(content)
        if error:
            raise error


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    if request.param == "folder":
        return str(tmp_path / "out"), tmp_path / "out"
    bucket: Bucket = request.getfixturevalue("bucket")
    return f"{bucket.uri}/out", bucket.folder / "out"


def test_whole_or_not_at_all(place: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, folder = place
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    write(f"{uri}/a.bin", b"first" * 100_000)
    assert (folder / "a.bin").read_bytes() == b"first" * 100_000
    with pytest.raises(KeyError):
        write(f"{uri}/a.bin", b"second", KeyError("because"))
    assert storage.read_bytes(f"{uri}/a.bin").startswith(b"first")
    assert [path.name for path in folder.iterdir()] == ["a.bin"]
    assert list((tmp_path / "temporary").iterdir()) == []
    write(f"{uri}/a.bin", b"third")
    assert storage.read_bytes(f"{uri}/a.bin") == b"third"


def test_a_full_disk_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RegradError, match=r"a\.bin: cannot write: .*No space left.*free some space"):
        write(str(tmp_path / "a.bin"), b"x", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(PermissionError):  # of something else: not the output's fault
        write(str(tmp_path / "a.bin"), b"x", PermissionError(errno.EACCES, "no"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RegradError, match="cannot write"):
        write(str(tmp_path / "file/a.bin"), b"x")


def test_the_file_may_be_read_like_any_other(tmp_path: Path) -> None:
    write(str(tmp_path / "a.bin"), b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "a.bin").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_folder_goes_with_all_that_is_in_it(place: tuple[str, Path]) -> None:
    uri, _ = place
    for name in ("old/a", "old/deep/b", "older"):
        storage.write_atomically(f"{uri}/{name}", b"x")
    storage.remove_folder(f"{uri}/old")
    storage.remove_folder(f"{uri}/old")  # gone already
    assert storage.list_files(f"{uri}/old") == []
    assert storage.read_bytes(f"{uri}/older") == b"x"


def test_what_is_hidden_is_masked_everywhere() -> None:
    storage.hide("https://hooks.example.org/T0/secret?x=1")
    assert storage.mask("posting https://hooks.example.org/T0/secret?x=1 now") == "posting *** now"


def test_files_are_listed_by_name_without_what_is_being_written(place: tuple[str, Path]) -> None:
    uri, _ = place
    for name in ("b.json", "a.json", "c.txt", "deep/d.json", f"{storage.TEMPORARY_PREFIX}x.json", "_SUCCESS"):
        storage.write_atomically(f"{uri}/{name}", b"x")
    assert storage.list_files(uri, ".json") == ["a.json", "b.json"]
    assert storage.list_files(uri) == ["a.json", "b.json", "c.txt", "deep"]
    assert storage.list_all(uri)[1] == [f"{storage.TEMPORARY_PREFIX}x.json"]
    assert storage.list_files(f"{uri}/nowhere") == []


def test_one_of_many_creates_a_file_on_a_disk(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: storage.create(str(tmp_path / "a"), str(number).encode()), range(32)))
    assert won.count(True) == 1
    assert (tmp_path / "a").read_text() == str(won.index(True))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_identity_of_a_file_is_that_of_its_content(place: tuple[str, Path]) -> None:
    uri, _ = place
    storage.write_atomically(f"{uri}/a", b"first")
    content, identity = storage.read_identified(f"{uri}/a")
    assert (content, identity) == (b"first", storage.identity(f"{uri}/a"))
    storage.write_atomically(f"{uri}/a", b"other")
    assert storage.identity(f"{uri}/a") != identity
    storage.remove(f"{uri}/a")
    storage.remove(f"{uri}/a")  # gone already
    with pytest.raises(FileNotFoundError, match="/a: no such file"):
        storage.identity(f"{uri}/a")


def test_a_link_has_the_identity_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert storage.identity(str(tmp_path / "link")) == storage.identity(str(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b"xyz")
    assert storage.identity(str(tmp_path / "link")) == storage.identity(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("info", "identity"),
    [
        ({"size": 3, "ETag": '"abc"'}, "3:abc"),
        ({"size": 3, "ETag": "abc", "LastModified": "later"}, "3:abc"),
        ({"size": 3, "LastModified": "2026-01-01"}, "3:2026-01-01"),
        ({"size": 3, "generation": 17}, "3:17"),
    ],
)
def test_what_tells_contents_apart(info: dict[str, Any], identity: str) -> None:
    assert storage.identify(info) == identity


def test_places_are_joined_and_schemes_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.join("s3://bucket/a/", "b", "c") == "s3://bucket/a/b/c"
    monkeypatch.chdir(tmp_path)
    fs, path = storage.filesystem("a/b")
    assert storage.is_local(fs)
    assert path == str(tmp_path / "a/b")
    with pytest.raises(UsageError, match="nosuch"):
        storage.filesystem("nosuch://host/a")
    with pytest.raises(UsageError, match=r"s3://\*\*\*@bucket"):
        storage.filesystem("s3://key:secret@bucket/a")
