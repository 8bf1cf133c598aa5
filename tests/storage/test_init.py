"""Files too large to write at once: there when they are whole, and never before; folders that go; what is hidden."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from regrad import storage
from regrad.errors import RegradError
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
