"""Servers that are not there, say nothing, or answer; and what is set meanwhile."""

from __future__ import annotations

import http.server
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from regrad.errors import UsageError
from regrad.models import offline


@pytest.fixture
def server() -> Iterator[str]:
    """One that knows no page."""
    httpd = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/file"
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def silent() -> Iterator[str]:
    """One that lets in and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/file"


def test_a_server_that_answers_is_reached_whatever_it_says(server: str) -> None:
    assert offline.unreachable(server) is None


def test_a_server_that_says_nothing_is_given_up(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "_SECONDS", 0.5)
    started = time.monotonic()
    assert offline.unreachable(silent) is not None
    assert time.monotonic() - started < 3


def test_a_name_that_is_looked_up_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "_SECONDS", 0.1)
    given_up, looked_up = threading.Event(), threading.Event()

    def look_up(*args: object, **kwargs: object) -> None:
        given_up.wait(30)
        looked_up.set()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert offline.unreachable("https://hub.example/file") == "no answer in 0.1 s"
    given_up.set()
    assert looked_up.wait(30)


def test_no_way_is_a_line_with_the_remedy() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/w.pth"
        with (
            pytest.raises(UsageError, match=r"^spec: cannot fetch the weights: 127.0.0.1 cannot be reached .*do this$"),
            offline.fetching("spec", url, False, "do this"),
        ):
            pytest.fail("nothing to be done there")


def test_settings_hold_meanwhile_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "unreachable", lambda url: "no way")
    before = (constants.HF_HUB_OFFLINE, socket.getdefaulttimeout(), logging.getLogger("huggingface_hub").level)
    with offline.fetching("spec", "https://hub", True, "", asks=True):
        assert constants.HF_HUB_OFFLINE
        assert socket.getdefaulttimeout() is not None
        assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
        assert logging.getLogger("huggingface_hub").level == logging.ERROR
    after = (constants.HF_HUB_OFFLINE, socket.getdefaulttimeout(), logging.getLogger("huggingface_hub").level)
    assert after == before
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_what_is_here_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "unreachable", lambda url: pytest.fail("asked"))
    with offline.fetching("spec", "https://hub/w.pth", True, ""):
        assert not constants.HF_HUB_OFFLINE
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with (
        pytest.raises(UsageError, match=r"cannot be reached \(\$HF_HUB_OFFLINE is set\)"),
        offline.fetching("spec", "https://hub", False, "", asks=True),
    ):
        pytest.fail("nothing to be done there")


def test_what_a_download_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "unreachable", lambda url: None)
    with (
        pytest.raises(UsageError, match=r"^spec: cannot fetch the weights: OSError: first: do this$"),
        offline.fetching("spec", "https://hub", False, "do this"),
    ):
        raise OSError("first\nsecond")
