"""What workers take over, and how their errors come back; without Ray."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from regrad.cluster.handover import WorkerFailure, settle_in, surroundings
from regrad.errors import RegradError, UsageError


def problem_of(error: Exception) -> WorkerFailure:
    try:
        raise error
    except type(error) as raised:
        return WorkerFailure.of(raised)


def test_storage_settings_travel_and_the_webhook_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_REGION", "nowhere-1")
    monkeypatch.setenv("REGRAD_CACHE", "/cache")
    monkeypatch.setenv("REGRAD_NOTIFY", "https://host/secret")
    monkeypatch.setenv("UNRELATED", "x")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/their/code"]))
    monkeypatch.chdir(tmp_path)
    environment, paths = surroundings()
    assert (environment["AWS_REGION"], environment["REGRAD_CACHE"]) == ("nowhere-1", "/cache")
    assert {"REGRAD_NOTIFY", "UNRELATED", "PATH"} & environment.keys() == set()
    assert paths == [str(tmp_path), "/their/code"]


def test_a_worker_settles_in_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/first"])
    monkeypatch.setenv("AWS_REGION", "old")
    for _ in range(2):
        settle_in({"AWS_REGION": "new"}, ["/first", "/code"])
    assert sys.path == ["/first", "/code"]
    assert os.environ["AWS_REGION"] == "new"


def test_a_folder_that_was_removed_under_the_driver_is_still_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setenv("PWD", str(gone))
    gone.rmdir()
    assert surroundings()[1][0] == str(gone)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (UsageError("--sigma -1: must be 0 or larger"), UsageError, "--sigma -1: must be 0 or larger"),
        (RegradError("s3://a/b: cannot read"), RegradError, "s3://a/b: cannot read"),
        (KeyError("s3://key:secret@bucket/x"), RegradError, r"a worker failed: KeyError: 's3://\*\*\*@bucket/x'"),
    ],
    ids=["usage", "failure", "fault"],
)
def test_an_error_comes_back_as_its_kind(error: Exception, kind: type[RegradError], message: str) -> None:
    arrived = WorkerFailure(**asdict(problem_of(error)))
    with pytest.raises(kind, match=f"^{message}$") as caught:
        arrived.throw()
    assert type(caught.value) is kind
    assert "raise error" in str(caught.value.__cause__)  # the worker's own traceback, for --verbose
