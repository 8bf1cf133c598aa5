"""The webhook: what it is told, that its address stays hidden, and that nothing it does holds up an audit."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from regrad import storage
from regrad.audit import notify
from regrad.errors import UsageError


class Hook(http.server.BaseHTTPRequestHandler):
    """Remembers what it was told; answers with the status in the path."""

    heard: list[tuple[str, bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append((self.headers["Content-Type"], body))
        status = int(self.path.split("/")[1])
        self.send_response(status)
        if status == 307:
            self.send_header("Location", "/200/secret-token")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Hook.heard.clear()
    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


def test_slack_takes_what_is_posted(server: str) -> None:
    audit = {
        "night": "2026-11-24",
        "headline": ["7 of 9 images look unknown", "Gate exceeded: psi < 0.2 (it is 0.3)."],
        "gates": [{"gate": "psi < 0.2", "verdict": "exceeded"}, {"gate": "ks < 1", "verdict": "held"}],
    }
    text = notify.message(audit, "s3://bucket/audit.html")
    assert notify.post(f"{server}/200/secret-token", text) is None
    ((kind, body),) = Hook.heard
    assert kind == "application/json"
    assert set(json.loads(body)) == {"text"}
    told = json.loads(body)["text"]
    assert "regrad audit 2026-11-24: FAILED psi < 0.2. 7 of 9 images look unknown" in told
    assert told.endswith("s3://bucket/audit.html")
    assert "ks < 1" not in told


@pytest.mark.parametrize("status", [404, 500, 307])
def test_a_refusal_is_told_and_not_followed(server: str, status: int) -> None:
    assert notify.post(f"{server}/{status}/secret-token", "x") == f"HTTP {status}"
    assert len(Hook.heard) == 1


def test_nobody_there_is_told_without_the_address() -> None:
    url = notify.check_url("http://127.0.0.1:9/services/T0/B0/very-secret")
    problem = notify.post(url, "x")
    assert problem is not None
    assert "very-secret" not in problem
    assert notify.host(url) == "http://127.0.0.1/***"
    assert storage.mask(f"posting to {url} failed") == "posting to *** failed"


def test_a_server_that_drips_is_left_after_the_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                for letter in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000:
                    connection.send(bytes([letter]))
                    time.sleep(0.2)

        threading.Thread(target=drip, daemon=True).start()
        started = time.monotonic()
        assert notify.post(f"http://127.0.0.1:{listening.getsockname()[1]}/", "x", seconds=1.5) == "no answer in time"
        assert time.monotonic() - started < 30  # it would take three minutes


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "hooks.slack.com/x", "http://", "http://h:port/"]
)
def test_other_addresses_are_refused_unnamed(url: str) -> None:
    with pytest.raises(UsageError, match=r"^--notify: not an http:// or https:// URL of a webhook$"):
        notify.check_url(url)
