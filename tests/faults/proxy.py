"""A bad network and a busy store: an HTTP proxy in front of a real S3 server that does harm by a seeded schedule.

It forwards every header as it came, `Host` included, so that the server checks the client's own signature.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

ANSWERS = {
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "429": (429, "TooManyRequests", "Too many requests."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "denied": (403, "AccessDenied", "Access Denied"),
}
TRANSIENT = ("500", "503", "429", "reset", "lost answer", "truncated", "latency")


class Request(NamedTuple):
    """One request; ``count`` says the how manieth of its kind it is, from 0."""

    method: str
    path: str
    range: str
    count: int


Schedule = Callable[[Request], str | None]


def seeded(seed: int, shares: Mapping[str, float]) -> Schedule:
    """Each fault of ``shares`` on that share of requests, the same ones in every run, whatever their order."""

    def choose(request: Request) -> str | None:
        digest = hashlib.sha256(f"{seed} {request}".encode()).digest()
        drawn = int.from_bytes(digest[:8], "big") / 2**64
        for fault, share in shares.items():
            drawn -= share
            if drawn < 0:
                return fault
        return None

    return choose


def in_turn(faults: Sequence[str], every: int) -> Schedule:
    """Each fault in turn, one on every so many requests."""
    number = itertools.count(1)
    turns = itertools.cycle(faults)
    return lambda request: None if next(number) % every else next(turns)


class Proxy:
    """Listens on ``port``; ``schedule`` names the fault of a request or None, ``harmed`` has those that got one.

    ``hook`` is called before a request is forwarded, for tests that change something in the middle of a run.
    """

    def __init__(self, upstream: int, latency: float = 2.0):
        self.upstream = upstream
        self.latency = latency
        self.schedule: Schedule = lambda request: None
        self.hook: Callable[[Request], None] = lambda request: None
        self.requests: list[Request] = []
        self.harmed: list[tuple[Request, str]] = []
        self._seen: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.port = self._server.server_address[1]

    @property
    def done(self) -> Counter[str]:
        """How many requests got which fault."""
        return Counter(fault for _, fault in self.harmed)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Proxy]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def take(self, method: str, path: str, span: str) -> tuple[Request, str | None]:
        """Note a request and decide its fate."""
        with self._lock:
            request = Request(method, path, span, self._seen[method, path, span])
            self._seen[method, path, span] += 1
            self.requests.append(request)
            fault = self.schedule(request)
            if fault:
                self.harmed.append((request, fault))
        self.hook(request)
        return request, fault

    def rest(self) -> None:
        """Do no harm from now on."""
        self.schedule = lambda request: None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request, fault = proxy.take(self.command, self.path, self.headers.get("Range", ""))
            if fault == "latency":
                time.sleep(proxy.latency)
            if fault == "reset":
                self.reset()
            elif fault in ANSWERS:
                self.refuse(*ANSWERS[fault])
            else:
                self.forward(request, body, fault)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

        def forward(self, request: Request, body: bytes, fault: str | None) -> None:
            upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=30)
            with contextlib.closing(upstream):
                upstream.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    upstream.putheader(name, value)
                upstream.endheaders(body)
                answer = upstream.getresponse()
                content = answer.read()
            if fault == "lost answer" or (fault == "truncated" and len(content) < 2):
                self.reset()
                return
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if request.method == "HEAD" else len(content)
            self.send_header("Content-Length", str(length or 0))
            self.end_headers()
            if fault == "truncated":
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            else:
                self.wfile.write(content)

        def refuse(self, status: int, code: str, message: str) -> None:
            content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()  # with nothing to linger for, the peer gets a RST
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    return Handler
