"""Files kept on a machine: one download for all of its processes, whole or not at all, and never a stale one."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrad.storage import cache
from tests.faults.proxy import Proxy, Request
from tests.services import Bucket, S3Server

READ = "import sys; from regrad.storage import cache; sys.stdout.buffer.write(cache.read_cached(sys.argv[1]))"
CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def proxy(s3_server: S3Server, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with Proxy(s3_server.port).listening() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield proxy


def put(bucket: Bucket, tmp_path: Path, content: bytes) -> str:
    (tmp_path / "weights").write_bytes(content)
    return bucket.put(str(tmp_path / "weights"), "w.safetensors")


def start(uri: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", READ, uri], stdout=subprocess.PIPE)


def downloads(proxy: Proxy) -> int:
    return sum(request.method == "GET" and request.path.endswith("w.safetensors") for request in proxy.requests)


def test_processes_of_a_machine_download_once(tmp_path: Path, folder: Path, bucket: Bucket, proxy: Proxy) -> None:
    uri = put(bucket, tmp_path, CONTENT)
    proxy.requests.clear()
    readers = [start(uri) for _ in range(3)]
    assert [reader.communicate(timeout=60)[0] == CONTENT for reader in readers] == [True] * 3
    assert downloads(proxy) == 1
    assert cache.read_cached(uri) == CONTENT
    assert downloads(proxy) == 1


def test_a_process_killed_while_it_downloads_leaves_nothing_half_done(
    tmp_path: Path, folder: Path, bucket: Bucket, proxy: Proxy
) -> None:
    uri = put(bucket, tmp_path, CONTENT)
    proxy.requests.clear()
    begun, go_on = threading.Event(), threading.Event()

    def hold(request: Request) -> None:
        if request.method == "GET":
            begun.set()
            go_on.wait(30)

    proxy.hook = hold
    first = start(uri)
    assert begun.wait(60)
    second = start(uri)
    first.kill()
    first.wait()
    assert not list(folder.glob("*.whole"))
    go_on.set()
    assert second.communicate(timeout=60)[0] == CONTENT
    assert downloads(proxy) == 2


def test_what_was_replaced_is_fetched_anew(tmp_path: Path, folder: Path, bucket: Bucket) -> None:
    assert cache.read_cached(put(bucket, tmp_path, b"old weights")) == b"old weights"
    assert cache.read_cached(put(bucket, tmp_path, b"new weights")) == b"new weights"


def test_what_nobody_asks_for_goes(tmp_path: Path, folder: Path, bucket: Bucket) -> None:
    cache.read_cached(put(bucket, tmp_path, b"old weights"))
    (old,) = folder.glob("*.whole")
    (folder / "killed.partial").write_bytes(b"old w")
    for path in (old, folder / "killed.partial"):
        os.utime(path, (time.time() - 31 * 86400,) * 2)
    cache.read_cached(put(bucket, tmp_path, b"new weights"))
    (new,) = folder.glob("*.whole")
    assert new != old
    assert not list(folder.glob("*.partial"))


def test_without_a_place_to_keep_it_every_process_downloads(
    tmp_path: Path, folder: Path, bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(bucket, tmp_path, CONTENT)
    proxy.requests.clear()
    folder.write_text("a file is in the way")
    assert [cache.read_cached(uri) == CONTENT for _ in range(2)] == [True, True]
    folder.unlink()
    monkeypatch.setattr(os, "getuid", lambda: 12345)  # a folder that somebody else has made
    assert cache.read_cached(uri) == CONTENT
    assert downloads(proxy) == 3


def test_local_files_are_read_where_they_are(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "w").write_bytes(b"weights")
    assert cache.read_cached(str(tmp_path / "w")) == b"weights"
    assert not list(folder.glob("*.whole"))
    with pytest.raises(FileNotFoundError, match="no such file"):
        cache.read_cached(str(tmp_path / "nothing"))
