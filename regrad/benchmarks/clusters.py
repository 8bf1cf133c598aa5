"""A Ray cluster of several nodes on this machine, each a process of its own, with addresses and cores of its own."""

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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from regrad.benchmarks.quota import quota, within
from regrad.errors import RegradError

_HEAD = "127.0.0.2"
_OBJECT_STORE_BYTES = 2**27
_STARTS_WITHIN = 180.0  # seconds


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(
    port: int, process: subprocess.Popen[bytes], host: str = "127.0.0.1", seconds: float = _STARTS_WITHIN
) -> None:
    """Return when ``process`` listens on ``port``.

    Raises:
        RegradError: it ended, or does not listen in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                return
        time.sleep(0.05)
    raise RegradError(f"{process.args!r}: does not listen on {host}:{port} (exit code {process.poll()})")


@dataclass
class Node:
    """A node as ``ray start`` makes it.

    Attributes:
        address: which the others know it by.
        metrics: where it shows its metrics.
        taken: what is given back when it has ended.
    """

    address: str
    metrics: str
    process: subprocess.Popen[bytes]
    taken: contextlib.ExitStack

    def stop(self) -> None:
        """End it by SIGTERM, and what of its processes is left then."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(3)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what of the node did not end on its own
        self.process.wait()
        self.taken.close()


@dataclass
class LocalCluster:
    """A head with a job server, and nodes that join it, on addresses of the loopback interface.

    Attributes:
        environment: what lets clients and nodes in.
        nodes: the head first.
    """

    environment: Mapping[str, str]
    gcs: int = field(default_factory=free_port)
    dashboard: int = field(default_factory=free_port)
    nodes: list[Node] = field(default_factory=list)

    @property
    def address(self) -> str:
        """For ``--ray-address``."""
        return f"{_HEAD}:{self.gcs}"

    @property
    def job_server(self) -> str:
        """For `regrad submit`."""
        return f"http://{_HEAD}:{self.dashboard}"

    def join(self, cpus: int, cores: float | None = None) -> Node:
        """Another node, when it has joined, with a quota of ``cores`` if given."""
        number = len(self.nodes)
        return self._start(f"127.0.0.{2 + number}", cpus, f"--address={self.address}", cores=cores)

    def _start(self, host: str, cpus: int, *more: str, cores: float | None = None, port: int | None = None) -> Node:
        taken = contextlib.ExitStack()
        group = taken.enter_context(quota(cores))
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets lie in it: its path must be short
        taken.callback(shutil.rmtree, folder, ignore_errors=True)
        shown = free_port()
        # Metrics are shown within a second instead of ten.
        environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_metrics_report_interval_ms": "1000"}
        command = [
            *(str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats"),
            *(f"--num-cpus={cpus}", f"--node-ip-address={host}", f"--object-store-memory={_OBJECT_STORE_BYTES}"),
            *(f"--metrics-export-port={shown}", f"--dashboard-agent-listen-port={free_port()}"),
            *(f"--temp-dir={folder}", *more),
        ]
        inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        process = subprocess.Popen(  # noqa: S603 - Ray's own program, beside this Python
            [*within(group), *command],
            env=inherited | environment | dict(self.environment),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        node = Node(host, f"http://{host}:{shown}/metrics", process, taken)
        self.nodes.append(node)
        wait_until_listening(port or shown, process, host)
        return node

    def start_head(self, cpus: int) -> Node:
        """The head, when its job server answers."""
        server = (f"--dashboard-host={_HEAD}", f"--dashboard-port={self.dashboard}", "--include-dashboard=true")
        more = ("--head", f"--port={self.gcs}", *server, f"--ray-client-server-port={free_port()}")
        return self._start(_HEAD, cpus, *more, port=self.dashboard)

    def end(self) -> None:
        """All of it, the head last."""
        for node in reversed(self.nodes):
            node.stop()


@contextlib.contextmanager
def local_cluster(environment: Mapping[str, str], head_cpus: int = 1) -> Iterator[LocalCluster]:
    """A head, to which nodes may :meth:`~LocalCluster.join`; all end with the context."""
    cluster = LocalCluster(environment)
    try:
        cluster.start_head(head_cpus)
        yield cluster
    finally:
        cluster.end()
