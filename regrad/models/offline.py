"""Downloads of published weights: where there is no way to the hub, that is one line within seconds.

The hubs' own clients try for most of a minute, or without end. So the way is looked at first, once and briefly; what is
on this machine already needs none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

from regrad import storage
from regrad.errors import UsageError

_SECONDS = 5.0
_STALLED_SECONDS = 30.0  # a server that says nothing for so long will not


@contextlib.contextmanager
def fetching(spec: str, url: str, here: bool, remedy: str, asks: bool = False) -> Iterator[None]:
    """A download of ``spec``'s from ``url``, or the use of what is ``here``; a failure is one line with ``remedy``.

    Whatever calls ``torch.load`` meanwhile gets no code executed, and hubs do not chat.

    Args:
        asks: whether the client is Hugging Face's, which asks its server for what is here too.

    Raises:
        UsageError: there is no way to the server and nothing here, or the download failed.
    """
    if asks and _hugging_face_is_off():
        reason: str | None = "$HF_HUB_OFFLINE is set"
    else:
        reason = None if here and not asks else unreachable(url)
    if reason and not here:
        host = urllib.parse.urlsplit(url).hostname
        raise UsageError(f"{spec}: cannot fetch the weights: {host} cannot be reached ({reason}): {remedy}")
    try:
        with _weights_only(), _quiet(), _stalls(), _without_network(bool(reason)):
            yield
    except UsageError:
        raise
    except Exception as error:  # whatever a hub raises
        raise UsageError(f"{spec}: cannot fetch the weights: {storage.reason(error)}: {remedy}") from error


def unreachable(url: str) -> str | None:
    """Why ``url``'s server cannot be reached; None if it answers, whatever it says. Takes a few seconds at most."""
    answers: list[str | None] = []
    # In a thread, since the look-up of a name knows no limit.
    looking = threading.Thread(target=lambda: answers.append(_ask(url)), daemon=True)
    looking.start()
    looking.join(_SECONDS + 1)
    return answers[0] if answers else f"no answer in {_SECONDS:g} s"


def _ask(url: str) -> str | None:
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(f"{parts.scheme}://{parts.netloc}/", method="HEAD")  # noqa: S310  (http or https)
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None  # it answers
    except (urllib.error.URLError, OSError, ValueError) as error:
        return str(getattr(error, "reason", None) or error)


def _hugging_face_is_off() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


@contextlib.contextmanager
def _without_network(off: bool) -> Iterator[None]:
    """Let Hugging Face's client look at its cache alone, if ``off``."""
    if not off:
        yield
        return
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Whatever calls ``torch.load`` meanwhile gets no code executed: torchvision asks for whole pickles."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the clients log of their tries is told in a line of our own."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm", "httpx")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _stalls() -> Iterator[None]:
    """A connection over which nothing comes ends: urllib's has no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALLED_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
