"""Our S3: one for a process and environment, whole bodies whatever happens to them. Faults by a proxy: tests/faults."""

from __future__ import annotations

import os
from typing import Any

import pytest
import s3fs
from botocore.exceptions import ClientError

from regrad.storage import retry, s3
from tests.services import Bucket


def test_there_is_one_for_an_environment(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    first = s3.connect(bucket.uri)
    assert s3.connect(f"{bucket.uri}/x") is first
    monkeypatch.setenv("AWS_REGION", "elsewhere-1")
    other = s3.connect(bucket.uri)
    assert other is not first
    monkeypatch.undo()


def test_it_never_tries_again_by_itself(bucket: Bucket) -> None:
    fs = s3.connect(bucket.uri)
    assert fs.retries == 1
    assert fs._prepare_config_kwargs()["retries"] == {"total_max_attempts": 1, "mode": "standard"}


def test_nothing_is_listed_from_memory(bucket: Bucket) -> None:
    fs, folder = s3.connect(bucket.uri), f"{bucket.uri.removeprefix('s3://')}/a"
    fs.pipe_file(f"{folder}/1", b"x")
    assert fs.ls(folder) == [f"{folder}/1"]
    another = s3fs.S3FileSystem(skip_instance_cache=True)  # as another process has it
    another.pipe_file(f"{folder}/2", b"y")
    assert fs.ls(folder) == [f"{folder}/1", f"{folder}/2"]


class Bodies:
    """What a store answers, one body after another: as botocore's, with only what is read of it."""

    def __init__(self, *answers: tuple[str, int, bytes]) -> None:
        self.answers = list(answers)
        self.ranges: list[str | None] = []

    async def __call__(self, method: str, **keywords: Any) -> dict[str, Any]:
        self.ranges.append(keywords.get("Range"))
        etag, size, content = self.answers.pop(0)
        if content == b"beyond":
            raise ClientError({"Error": {"Code": "InvalidRange"}, "ResponseMetadata": {"HTTPStatusCode": 416}}, method)
        return {"ETag": etag, "ContentLength": size, "Body": Body(content)}


class Body:
    def __init__(self, content: bytes) -> None:
        self.content = content

    async def read(self, size: int) -> bytes:
        part, self.content = self.content[:size], self.content[size:]
        return part

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("answers", "content", "ranges"),
    [
        ([("e1", 6, b"abcdef")], b"abcdef", [None]),
        ([("e1", 6, b"abc"), ("e1", 3, b"def")], b"abcdef", [None, "bytes=3-"]),  # read on where it broke off
        ([("e1", 6, b"abc"), ("e2", 1, b"z"), ("e2", 4, b"wxyz")], b"wxyz", [None, "bytes=3-", None]),  # another now
        ([("e1", 6, b"abc"), ("", 0, b"beyond"), ("e2", 2, b"hi")], b"hi", [None, "bytes=3-", None]),  # shorter now
    ],
    ids=["whole", "cut short", "replaced", "replaced by less"],
)
def test_a_body_that_breaks_off(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, answers: list[Any], content: bytes, ranges: list[str | None]
) -> None:
    monkeypatch.setattr(retry, "_FIRST", 0.01)
    bodies = Bodies(*answers)
    monkeypatch.setattr("s3fs.S3FileSystem._call_s3", lambda self, method, *_, **keywords: bodies(method, **keywords))
    fs = s3.connect(bucket.uri)
    read, info = fs.read_whole(f"{os.path.basename(bucket.uri)}/x")
    assert bytes(read) == content
    assert info["size"] == len(content)
    assert bodies.ranges == ranges
    assert bodies.answers == []
