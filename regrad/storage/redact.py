"""What may be shown: no credentials, whatever text they are in."""

from __future__ import annotations

import math
import os
import re
from typing import Any

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
_SHORTEST = 8  # characters; taking out less would tear ordinary words apart
# "user@" or "key:secret@" behind "://". Secrets of AWS hold slashes, unlike what is before the first colon; the digits
# of a port and its slash begin no secret, since then "http://host:9000/photo@2x" would be taken for one.
_USER_INFO = r"(?<=://)(?:[^/@\s]*|[^/@:\s]*:(?!\d+/)[^@\s]*)@"
_SIGNED = r"[?&](?:X-Amz-|X-Goog-|Signature=|sig=|token=)"
_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Let :func:`mask` take out ``secret`` too, from now on in this process: a webhook's address, say."""
    if len(secret) >= _SHORTEST:
        _hidden.add(secret)


def holds_credentials(uri: str) -> bool:
    """Whether ``uri`` has a user, a password or a signature in it.

    >>> holds_credentials("s3://key:sec/ret@bucket/a"), holds_credentials("s3://bucket/photo@2x.png")
    (True, False)
    """
    return re.search(f"{_USER_INFO}|{_SIGNED}", uri, re.IGNORECASE) is not None


def mask(text: str) -> str:
    """``text`` without the user names, passwords and query strings of any URI in it, and without our stores' secrets.

    >>> mask("cannot read s3://key:secret@bucket/a?X-Amz-Signature=1")
    'cannot read s3://***@bucket/a?***'
    """
    for secret in _hidden:
        text = text.replace(secret, "***")
    text = re.sub(_USER_INFO, "***@", text)
    text = re.sub(r"(\b\w+://[^\s?]+\?)\S+", r"\1***", text)
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return text


def published(value: Any) -> Any:
    """``value`` fit to leave the house: credentials in URIs masked, and every number one that JSON knows."""
    if isinstance(value, dict):
        return {published(key): published(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [published(item) for item in value]
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def reason(error: BaseException) -> str:
    """One masked line that says what ``error`` is, without a traceback."""
    lines = str(error).strip().splitlines()
    return mask(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
