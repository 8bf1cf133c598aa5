"""Nodes on this machine; a whole cluster is what tests/commands/test_submit.py runs on."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from regrad.benchmarks.clusters import Node, free_port, wait_until_listening
from regrad.errors import RegradError


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()[1] > 0


def test_what_ends_before_it_listens_is_told() -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    port = free_port()
    with pytest.raises(RegradError, match=rf"does not listen on 127\.0\.0\.1:{port} \(exit code 3\)"):
        wait_until_listening(port, process)


@pytest.mark.parametrize("head", ["exec sleep 60", "exit"])
def test_a_node_ends_with_all_that_it_started(head: str, tmp_path: Path) -> None:
    """Also what does not listen to a SIGTERM, and what it left behind when it ended."""
    script = f"trap '' TERM; sleep 60 & echo $! >child; mv child ready; {head}"
    process = subprocess.Popen(["sh", "-c", script], cwd=tmp_path, start_new_session=True)
    end = time.monotonic() + 20
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    child = psutil.Process(int((tmp_path / "ready").read_text()))
    given_back: list[str] = []
    taken = contextlib.ExitStack()
    taken.callback(given_back.append, "folder")
    Node("127.0.0.9", "", process, taken).stop()
    child.wait(10)
    assert given_back == ["folder"]
