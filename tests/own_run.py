"""A run of `regrad score` as a user's process with a Ray of its own: what it printed, wrote and listened to."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from regrad.benchmarks.clusters import free_port
from tests.data import ROOT
from tests.services import S3Server, lasting
from tests.shards import digits, write_parquet

# What every user has: a module by the name of a command. Beside it lies what a worker's process would import.
TRAIN = """
import os
import sys

import select
import tests.shards

assert select.poll().poll(0) == []
assert not [folder for folder in sys.path if os.path.exists(os.path.join(folder, "reproduce.py"))]


def build():
    return tests.shards.build()
"""
SESSION_TOKEN = "session-token-of-the-tests"  # the server has no sessions, and ignores it


@dataclass
class OwnRun:
    """A run that has ended: 30 images of a bucket, and one that is none, by ``jobs/score.py`` with ``--verbose``.

    Attributes:
        folder: where it was started, with the model's module ``train.py``; what it printed is in ``out`` and ``err``.
        objects: the folder that holds the objects of its bucket.
        logs: the folder of those of Ray.
        environment: in which the bucket may be read.
        code: its exit code.
        listening: addresses that its processes were seen to listen on, by their names.
    """

    folder: Path
    objects: Path
    logs: Path
    environment: dict[str, str]
    code: int | None = None
    listening: dict[str, set[str]] = field(default_factory=dict)

    output = "s3://own-run/out"

    def score(self) -> None:
        """Start it, look at it while it goes on, and wait for it."""
        command = [sys.executable, str(ROOT / "jobs/score.py"), "s3://own-run/in", "--output", self.output]
        command += ["--model", "train:build", "--scores", "entropy", "--num-workers", "1", "--verbose"]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(self.logs), **self.environment}
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=out, stderr=err)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                self._look(psutil.Process(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        self.code = process.returncode

    def _look(self, driver: psutil.Process) -> None:
        for process in driver.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                places = {
                    socket.laddr.ip.removeprefix("::ffff:")
                    for socket in process.net_connections("inet")
                    if socket.status == psutil.CONN_LISTEN
                }
                if places:
                    self.listening.setdefault(process.name(), set()).update(places)


@pytest.fixture
def own_run() -> OwnRun:
    """One for all tests that look at it: to start one takes longer than all that they do."""
    return lasting(_own_run)


@contextlib.contextmanager
def _own_run() -> Iterator[OwnRun]:
    with (
        tempfile.TemporaryDirectory() as place,
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as logs,  # sockets lie in it: its path must be short
        S3Server(Path(place) / "s3", free_port()).running() as server,
    ):
        folder, objects = Path(place) / "folder", server.folder / "own-run"
        write_parquet(objects / "in/b.parquet", [*digits(30), ("bad", b"no image", 1)])
        folder.mkdir()
        (folder / "train.py").write_text(TRAIN)
        run = OwnRun(folder, objects, Path(logs), server.environment() | {"AWS_SESSION_TOKEN": SESSION_TOKEN})
        run.score()
        yield run
