"""A message to a webhook when an audit has ended. Whatever comes of it, the audit stands as it is."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class News:
    """What a webhook is told of a night.

    Attributes:
        failed: the gates that do not hold.
        headline: the first sentences of the page.
        page: where it is.
    """

    night: str
    gates: int
    failed: tuple[str, ...]
    headline: tuple[str, ...]
    page: str

    @property
    def outcome(self) -> str:
        """In a word."""
        return "failed" if self.failed else "passed" if self.gates else "done"

    @property
    def title(self) -> str:
        """In a line."""
        outcome = f"FAILED {', '.join(self.failed)}" if self.failed else self.outcome
        return f"regrad audit {self.night}: {outcome}"


_COLOURS = {"failed": "Attention", "passed": "Good", "done": "Default"}


def news_of(audit: dict[str, Any], page: str) -> News:
    """What is told of this ``audit.json``."""
    failed = tuple(gate["gate"] for gate in audit["gates"] if gate["verdict"] == "exceeded")
    return News(audit["night"], len(audit["gates"]), failed, tuple(audit["headline"][:3]), page)


def as_slack(told: News) -> dict[str, Any]:
    """One text, which Slack and what is compatible with it (Mattermost, Rocket.Chat, Google Chat) take."""
    return {"text": f"{told.title}. {' '.join(told.headline)} {told.page}"}


def as_teams(told: News) -> dict[str, Any]:
    """A message with an Adaptive Card, as a workflow of Teams takes it that posts what a webhook receives.

    Its texts are runs, which Teams shows as they are: in a block, an underscore of a gate would be Markdown.
    """
    title = _rich(told.title, weight="Bolder", size="Medium", color=_COLOURS[told.outcome])
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [title, *map(_rich, [*told.headline, told.page])],
    }
    if told.page.startswith(("http://", "https://")):
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open the page", "url": told.page}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _rich(text: str, **style: str) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}


def as_json(told: News) -> dict[str, Any]:
    """For programs: ``night``, ``outcome`` (passed, failed, or done where there are no gates), ``failed``, ``headline``
    and ``page``.
    """
    return {
        "night": told.night,
        "outcome": told.outcome,
        "failed": list(told.failed),
        "headline": list(told.headline),
        "page": told.page,
    }


#: What ``--notify-as`` may be: how a webhook is told.
PAYLOADS: dict[str, Callable[[News], dict[str, Any]]] = {"slack": as_slack, "teams": as_teams, "json": as_json}


def post(url: str, payload: Mapping[str, Any], seconds: float = SECONDS) -> str | None:
    """POST ``payload`` as JSON.

    Returns:
        Why it failed, in words that may be shown; None if it did not. It never takes longer than ``seconds``.
    """
    problem: list[str | None] = ["no answer in time"]

    def send() -> None:
        problem[0] = _send(url, payload, seconds)

    # A server that sends one byte at a time outlives every timeout of a socket; the thread ends with the process.
    thread = threading.Thread(target=send, name="regrad-notify", daemon=True)
    thread.start()
    thread.join(seconds)
    return problem[0]


def _send(url: str, payload: Mapping[str, Any], seconds: float) -> str | None:
    body = json.dumps(storage.published(dict(payload))).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  # see check_url
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=seconds) as answer:
            return None if 200 <= answer.status < 300 else f"HTTP {answer.status}"
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}"
    except Exception as error:  # whatever a network can do
        return storage.reason(error)
