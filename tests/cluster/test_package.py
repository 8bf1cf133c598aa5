"""The working directory that a job is sent: what is in it, and what is not."""

import os
import zipfile
from pathlib import Path

import pytest

from regrad.cluster import package
from regrad.errors import UsageError

FILES = ("jobs/score.py", "my_model/data/mean.json", "README.md")
LEFT_OUT = (".git/HEAD", ".venv/lib/x.py", "data/a.tar", "jobs/__pycache__/a.pyc", "regrad.egg-info/x", "big/a.bin")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*FILES, *LEFT_OUT):
        (tmp_path / "work" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "work" / name).write_text(name)
    return tmp_path / "work"


def pack(folder: Path, into: Path, most: int = 10_000) -> package.Package:
    return package.pack(str(folder), [*package.EXCLUDES, "/big"], most, str(into))


def test_code_is_sent_and_data_is_not(folder: Path, tmp_path: Path) -> None:
    packed = pack(folder, tmp_path)
    with zipfile.ZipFile(packed.path) as archive:
        assert sorted(archive.namelist()) == sorted(FILES)
        assert all(archive.read(name).decode() == name for name in FILES)
    assert (packed.files, packed.size) == (3, sum(map(len, FILES)))
    assert packed.packed == packed.path.stat().st_size


def test_the_same_files_make_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first = pack(folder, tmp_path).path.read_bytes()
    (folder / "README.md").touch()
    assert pack(folder, tmp_path).path.read_bytes() == first


def test_too_much_is_refused_and_the_largest_named(folder: Path, tmp_path: Path) -> None:
    (folder / "weights.bin").write_bytes(os.urandom(50_000))
    with pytest.raises(UsageError, match=r"more than 0\.01 MB to send \(largest: weights\.bin 0\.05 MB.*--exclude"):
        pack(folder, tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        pack(folder / "nowhere", tmp_path)
    with pytest.raises(UsageError, match="nothing to send"):
        package.pack(str(folder), ["*"], 10_000, str(tmp_path))
