"""An S3 store that is no imitation: whichever ``REGRAD_TEST_S3`` is the endpoint of (Ceph, MinIO, a cloud's)."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import s3fs

from regrad import storage
from regrad.commands.check import main as check
from regrad.commands.score import main as score
from regrad.errors import UsageError
from regrad.ledger import lease
from tests.shards import digits, write_folder, write_parquet, write_tar

ENDPOINT = os.environ.get("REGRAD_TEST_S3")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(ENDPOINT is None, reason="REGRAD_TEST_S3 names no endpoint (AWS_* hold its keys)"),
]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of an empty bucket."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(ENDPOINT))
    s3fs.S3FileSystem.clear_instance_cache()
    fs, name = fsspec.filesystem("s3"), f"regrad-{uuid.uuid4().hex[:8]}"
    fs.mkdir(name)
    yield f"s3://{name}"
    fs.rm(name, recursive=True)


def test_what_is_there_is_not_created_again(bucket: str) -> None:
    assert storage.create(f"{bucket}/once", b"first")
    assert not storage.create(f"{bucket}/once", b"second")
    assert storage.read_bytes(f"{bucket}/once") == b"first"


def test_one_run_at_a_time(bucket: str) -> None:
    with lease.hold(f"{bucket}/out", seconds=2) as held:
        with pytest.raises(UsageError, match="another run is at work"), lease.hold(f"{bucket}/out", lambda line: None):
            pass
        held.check()
    assert storage.list_files(f"{bucket}/out/lease") == []


@pytest.mark.usefixtures("ray_session")
def test_the_whole_job_and_the_same_again(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fs = fsspec.filesystem("s3")
    fs.put(write_tar(tmp_path / "a.tar", digits(40)), f"{bucket}/in/a.tar")
    fs.put(write_parquet(tmp_path / "b.parquet", digits(40)), f"{bucket}/in/b.parquet")
    fs.put(write_folder(tmp_path / "images", digits(20)), f"{bucket}/images", recursive=True)
    arguments = [f"{bucket}/in", f"{bucket}/images", "--model", "tests.shards:build", "--scores", "regrad,entropy"]
    for scored in (100, 0):
        assert score([*arguments, "--unit-rows", "15", "--output", f"{bucket}/out"]) == 0
        assert f"{scored} images" in capsys.readouterr().out
    assert check([f"{bucket}/out"]) == 0
    assert "OK: " in capsys.readouterr().out
