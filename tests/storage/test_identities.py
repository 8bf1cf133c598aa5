import functools
import http.server
import os
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest

from regrad import storage
from regrad.storage import cache
from regrad.storage.identities import identify, tells_change
from tests.storage import plain


@pytest.mark.parametrize(
    "told",
    [
        {"ETag": '"a"'},
        {"etag": "a"},
        {"md5Hash": "a", "updated": "never"},
        {"crc32c": "a"},
        {"generation": "1"},
        {"Last-Modified": "Fri, 27 Nov 2026 00:00:00 GMT"},
        {"LastModified": "2026"},
        {"mtime": 1.5},
        {"modify": "20261127"},
        {"modificationTime": 1},
        {"created": "2026"},
        {"content_settings": {"content_md5": "a"}},
        {"blob_id": "a", "lfs": None},
        {"lfs": {"sha256": "a"}},
        {"sha": "a"},
        {"VersionId": "a"},
        {"CRC": 7},
    ],
)
def test_whatever_a_store_offers_is_an_identity(told: dict[str, Any]) -> None:
    assert tells_change(identify({"size": 3, "type": "file"} | told))


@pytest.mark.parametrize("told", [{}, {"mtime": None}, {"mtime": 0}, {"ETag": ""}, {"lfs": {}}, {"mode": 33188}])
def test_a_size_is_none(told: dict[str, Any]) -> None:
    assert identify({"size": 3, "type": "file"} | told) == "3:"
    assert not tells_change("3:")


def test_a_checksum_goes_before_a_time() -> None:
    told = {"size": 3, "ETag": '"a"', "LastModified": 1}
    assert identify(told) == identify(told | {"LastModified": 2}) == "3:a"


def test_a_file_whose_time_is_set_to_nothing_is_told_by_its_status(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, (0, 0))
    before = storage.identity(str(path))
    assert tells_change(before)
    path.write_bytes(b"two")
    os.utime(path, (0, 0))
    assert storage.identity(str(path)) != before


def test_of_a_web_server_it_is_the_time_of_change(tmp_path: Path) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        (tmp_path / "a.tar").write_bytes(b"one")
        uri = f"http://127.0.0.1:{server.server_port}/a.tar"
        before = storage.identity(uri)
        assert (tells_change(before), storage.read_identified(uri)) == (True, (b"one", before))
        (tmp_path / "a.tar").write_bytes(b"two")
        os.utime(tmp_path / "a.tar", (10**9, 10**9))
        assert storage.identity(uri) != before
    finally:
        server.shutdown()


def test_a_store_is_asked_for_the_time_where_its_listing_has_none() -> None:
    fs = fsspec.filesystem("timed")
    fs.pipe_file("/in/a", b"one")
    before = storage.identity("timed://in/a")
    assert tells_change(before)
    assert storage.identity_in(fs, fs.ls("/in")[0]) == before == storage.read_identified("timed://in/a")[1]
    fs.pipe_file("/in/a", b"two")
    assert storage.identity("timed://in/a") != before


def test_nothing_is_kept_of_what_may_change_unnoticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    fs = fsspec.filesystem(plain.PlainFileSystem.protocol)
    fs.pipe_file("/weights", b"one")
    assert storage.identity("plain://weights") == "3:"
    assert cache.read_cached("plain://weights") == b"one"
    fs.pipe_file("/weights", b"two")
    assert cache.read_cached("plain://weights") == b"two"
