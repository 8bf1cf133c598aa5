"""The webhook: what it is told, that its address stays hidden, and that nothing it does holds up an audit."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator

import jsonschema
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


AUDIT = {
    "night": "2026-11-24",
    "headline": ["7 of 9 images look unknown.", "Gate exceeded: psi < 0.2 (it is 0.3).", "Third.", "Fourth."],
    "gates": [{"gate": "psi < 0.2", "verdict": "exceeded"}, {"gate": "ks < 1", "verdict": "held"}],
}
# What Microsoft documents of the message that a workflow posts, and of the elements of a card that are used.
TEXT = {
    "type": "object",
    "required": ["type", "inlines"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "RichTextBlock"},
        "inlines": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "text"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "TextRun"},
                    "text": {"type": "string"},
                    "weight": {"enum": ["Default", "Lighter", "Bolder"]},
                    "size": {"enum": ["Default", "Small", "Medium", "Large", "ExtraLarge"]},
                    "color": {"enum": ["Default", "Dark", "Light", "Accent", "Good", "Warning", "Attention"]},
                },
            },
        },
    },
}
OPEN = {"type": "object", "required": ["type", "url"], "properties": {"type": {"const": "Action.OpenUrl"}}}
CARD = {
    "type": "object",
    "required": ["type", "version", "body"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"const": "http://adaptivecards.io/schemas/adaptive-card.json"},
        "type": {"const": "AdaptiveCard"},
        "version": {"enum": ["1.2", "1.3", "1.4", "1.5"]},
        "body": {"type": "array", "items": TEXT},
        "actions": {"type": "array", "items": OPEN},
    },
}
TEAMS = {
    "type": "object",
    "required": ["type", "attachments"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "message"},
        "attachments": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["contentType", "content"],
                "properties": {
                    "contentType": {"const": "application/vnd.microsoft.card.adaptive"},
                    "content": CARD,
                },
            },
        },
    },
}


def told(server: str, form: str, audit: dict = AUDIT, page: str = "s3://bucket/audit.html") -> dict:
    """What arrives at the webhook."""
    payload = notify.PAYLOADS[form](notify.news_of(audit, page))
    assert notify.post(f"{server}/200/secret-token", payload) is None
    ((kind, body),) = Hook.heard
    assert kind == "application/json"
    Hook.heard.clear()
    return json.loads(body)


def test_slack_takes_what_is_posted(server: str) -> None:
    arrived = told(server, "slack")
    assert set(arrived) == {"text"}
    assert "regrad audit 2026-11-24: FAILED psi < 0.2. 7 of 9 images look unknown" in arrived["text"]
    assert arrived["text"].endswith("Third. s3://bucket/audit.html")
    assert "ks < 1" not in arrived["text"]


@pytest.mark.parametrize(
    ("gates", "title", "colour"),
    [
        (AUDIT["gates"], "FAILED psi < 0.2", "Attention"),
        (AUDIT["gates"][1:], "passed", "Good"),
        ([], "done", "Default"),
    ],
)
def test_teams_takes_what_is_posted(server: str, gates: list[dict], title: str, colour: str) -> None:
    arrived = told(server, "teams", AUDIT | {"gates": gates})
    jsonschema.validate(arrived, TEAMS)
    (card,) = (attachment["content"] for attachment in arrived["attachments"])
    first, *others = (block["inlines"][0] for block in card["body"])
    assert (first["text"], first["color"]) == (f"regrad audit 2026-11-24: {title}", colour)
    assert [other["text"] for other in others] == [*AUDIT["headline"][:3], "s3://bucket/audit.html"]
    assert "actions" not in card  # what no browser opens is no link
    linked = told(server, "teams", page="https://host/audit.html")
    jsonschema.validate(linked, TEAMS)
    assert linked["attachments"][0]["content"]["actions"][0]["url"] == "https://host/audit.html"


def test_programs_take_what_is_posted(server: str) -> None:
    expected = {"night": "2026-11-24", "outcome": "failed", "failed": ["psi < 0.2"], "page": "s3://bucket/audit.html"}
    assert told(server, "json") == expected | {"headline": AUDIT["headline"][:3]}
    assert told(server, "json", AUDIT | {"gates": []})["outcome"] == "done"


@pytest.mark.parametrize("form", notify.PAYLOADS)
def test_no_form_tells_a_credential(server: str, form: str) -> None:
    arrived = told(server, form, page="s3://key:very-secret@bucket/audit.html")
    assert "very-secret" not in json.dumps(arrived)
    assert "***" in json.dumps(arrived)


@pytest.mark.parametrize("status", [404, 500, 307])
def test_a_refusal_is_told_and_not_followed(server: str, status: int) -> None:
    assert notify.post(f"{server}/{status}/secret-token", {}) == f"HTTP {status}"
    assert len(Hook.heard) == 1


def test_nobody_there_is_told_without_the_address() -> None:
    url = notify.check_url("http://127.0.0.1:9/services/T0/B0/very-secret")
    problem = notify.post(url, {})
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
        assert notify.post(f"http://127.0.0.1:{listening.getsockname()[1]}/", {}, seconds=1.5) == "no answer in time"
        assert time.monotonic() - started < 30  # it would take three minutes


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "hooks.slack.com/x", "http://", "http://h:port/"]
)
def test_other_addresses_are_refused_unnamed(url: str) -> None:
    with pytest.raises(UsageError, match=r"^--notify: not an http:// or https:// URL of a webhook$"):
        notify.check_url(url)
