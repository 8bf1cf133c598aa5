"""A line to a webhook when an audit has ended. Whatever comes of it, the audit stands as it is."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from regrad import storage
from regrad.errors import UsageError

VARIABLE = "REGRAD_NOTIFY"
SECONDS = 10.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The text goes where it was told to go, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def check_url(url: str) -> str:
    """``url``, if it is one of the web. From now on it is masked wherever it would be shown: who knows it may post.

    Raises:
        UsageError: it is not.
    """
    storage.hide(url)
    try:
        parts = urllib.parse.urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise UsageError("--notify: not an http:// or https:// URL of a webhook")
    return url


def host(url: str) -> str:
    """What may be shown of a webhook: its scheme and host."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}/***"


def message(audit: dict[str, Any], page: str) -> str:
    """What the webhook is told: the outcome, the sentences of the headline, and where the page is."""
    failed = [gate["gate"] for gate in audit["gates"] if gate["verdict"] == "exceeded"]
    outcome = f"FAILED {', '.join(failed)}" if failed else "passed" if audit["gates"] else "done"
    return f"regrad audit {audit['night']}: {outcome}. {' '.join(audit['headline'][:3])} {page}"


def post(url: str, text: str, seconds: float = SECONDS) -> str | None:
    """POST ``{"text": text}`` as JSON, which Slack and what is compatible with it take.

    Returns:
        Why it failed, in words that may be shown; None if it did not. It never takes longer than ``seconds``.
    """
    problem: list[str | None] = ["no answer in time"]

    def send() -> None:
        problem[0] = _send(url, text, seconds)

    # A server that sends one byte at a time outlives every timeout of a socket; the thread ends with the process.
    thread = threading.Thread(target=send, name="regrad-notify", daemon=True)
    thread.start()
    thread.join(seconds)
    return problem[0]


def _send(url: str, text: str, seconds: float) -> str | None:
    body = json.dumps({"text": storage.mask(text)}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  # see check_url
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=seconds) as answer:
            return None if 200 <= answer.status < 300 else f"HTTP {answer.status}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except Exception as error:  # whatever a network can do
        return storage.reason(error)
