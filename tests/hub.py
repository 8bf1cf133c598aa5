"""A stand-in for Hugging Face's hub: one dataset repository over HTTP, as `HfFileSystem` asks for it.

It answers what the hub answers to these requests: repository, tree (in pages), paths-info, and resolve, which sends on
to a signed address elsewhere for large files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY = "owner/pictures"
PAGE = 2  # entries of a tree in one answer
Answer = tuple[int, dict[str, str], bytes]


class Hub:
    """The repository's revisions with their files, and what is to go wrong.

    Attributes:
        revisions: the content of each file, by revision and path.
        headers: of an answer that a fault is.
        token: that which a private repository wants, or None.
        fault: what a request (method, path) gets: a status, "hang", "short" (an answer of one byte less), or None.
        requests: all that came, in order.
        over: set at the end, for those that hang.
    """

    def __init__(self, files: dict[str, bytes]):
        self.revisions = {"main": files}
        self.headers: dict[str, str] = {}
        self.token: str | None = None
        self.fault: Callable[[str, str], int | str | None] = lambda method, path: None
        self.requests: list[str] = []
        self.over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def listening(self) -> Iterator[Hub]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def asked(self, method: str, kind: str) -> int:
        """How many requests of this method had this in their path."""
        return sum(request.startswith(method) and kind in request for request in self.requests)

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        """What a request gets; paths come percent-encoded."""
        place, _, query = path.partition("?")
        if place.startswith("/elsewhere/"):
            return self._content(place.rpartition("/")[2], headers)
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            # Over https the client takes any 401 for this; over http it has to be said.
            return _refusal(401, "RepoNotFound", "Invalid username or password.")
        kind, _, rest = place.removeprefix("/api").removeprefix(f"/datasets/{REPOSITORY}").lstrip("/").partition("/")
        if REPOSITORY not in place:
            return _refusal(401, "RepoNotFound", "Invalid username or password.")
        revision, _, name = rest.partition("/")
        files = self.revisions.get(urllib.parse.unquote(revision or "main"))
        if files is None:
            return _refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        answers = {"": _repository, "revision": _repository, "tree": _tree, "paths-info": _infos, "resolve": _file}
        asked = urllib.parse.parse_qs(query or body.decode())
        return answers[kind](files, urllib.parse.unquote(name), {**asked, "url": [self.endpoint + place]})

    def _content(self, digest: str, headers: Any) -> Answer:
        every = [content for files in self.revisions.values() for content in files.values()]
        content = next(content for content in every if hashlib.sha256(content).hexdigest() == digest)
        if not (span := headers.get("Range", "").removeprefix("bytes=")):
            return 200, {}, content
        first, _, last = span.partition("-")
        return 206, {}, content[int(first) : int(last) + 1 if last else None]


def _entry(files: dict[str, bytes], path: str) -> dict[str, Any]:
    if path not in files:
        return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
    content = files[path]
    digest, blob = hashlib.sha256(content).hexdigest(), hashlib.sha1(content).hexdigest()
    large = {"lfs": {"oid": digest, "size": len(content), "pointerSize": 130}} if _is_large(path) else {}
    return {"type": "file", "oid": blob, "size": len(content), "path": path, **large}


def _is_large(path: str) -> bool:
    return not path.endswith(".md") and "/small/" not in path


def _repository(files: dict[str, bytes], name: str, query: Any) -> Answer:
    siblings = [{"rfilename": file} for file in files]
    told = {"_id": "1", "id": REPOSITORY, "sha": "0" * 40, "private": False, "tags": [], "siblings": siblings}
    return 200, {}, json.dumps(told).encode()


def _tree(files: dict[str, bytes], folder: str, query: dict[str, list[str]]) -> Answer:
    prefix = f"{folder}/" if folder else ""
    below = {name.removeprefix(prefix): name for name in files if name.startswith(prefix)}
    if not below:
        return _refusal(404, "EntryNotFound", f"{folder} does not exist")
    entries = {_entry(files, name)["path"]: _entry(files, name) for name in below.values()}
    for rest in below:
        parts = rest.split("/")[:-1]
        for depth in range(len(parts)):
            path = prefix + "/".join(parts[: depth + 1])
            entries[path] = _entry(files, path)
    recursive = query["recursive"][0].lower() == "true"
    listed = [entries[path] for path in sorted(entries) if recursive or "/" not in path.removeprefix(prefix)]
    begin = int(query.get("cursor", ["0"])[0])
    headers = {}
    if begin + PAGE < len(listed):
        more = urllib.parse.urlencode({"recursive": recursive, "expand": False, "cursor": begin + PAGE})
        headers["Link"] = f'<{query["url"][0]}?{more}>; rel="next"'
    return 200, headers, json.dumps(listed[begin : begin + PAGE]).encode()


def _infos(files: dict[str, bytes], name: str, query: dict[str, list[str]]) -> Answer:
    folders = {"/".join(file.split("/")[:depth]) for file in files for depth in range(1, file.count("/") + 1)}
    told = [_entry(files, path) for path in query["paths"] if path in files or path in folders]
    return 200, {}, json.dumps(told).encode()


def _file(files: dict[str, bytes], name: str, query: Any) -> Answer:
    if name not in files:
        return _refusal(404, "EntryNotFound", "Entry not found")
    entry = _entry(files, name)
    if "lfs" not in entry:
        return 200, {"ETag": f'"{entry["oid"]}"'}, files[name]
    digest, size = entry["lfs"]["oid"], entry["size"]
    place = query["url"][0].partition("/datasets/")[0].replace("127.0.0.1", "localhost")  # another host
    linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(size), "ETag": '"of-the-answer"'}
    return 302, {"Location": f"{place}/elsewhere/{digest}?X-Amz-Signature=secret", **linked}, b""


def _refusal(status: int, code: str, message: str) -> Answer:
    return status, {"X-Error-Code": code, "X-Error-Message": message}, json.dumps({"error": message}).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.requests.append(f"{self.command} {self.path}")
            fault = hub.fault(self.command, self.path)
            if fault == "hang":
                hub.over.wait(30)
            if isinstance(fault, int):
                status, headers, content = fault, hub.headers, b""
            else:
                status, headers, content = hub.answer(self.command, self.path, self.headers, body)
            content = content[:-1] if fault == "short" else content
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_HEAD = do_GET = do_POST = handle_any

        def log_message(self, *arguments: Any) -> None:
            """Requests are kept, not printed."""

    return Handler
