"""What may be shown: no credentials, whatever text they are in."""

from __future__ import annotations

import os
import re

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SHORTEST = 8  # characters; taking out less would tear ordinary words apart
_hidden: set[str] = set()


def hide(secret: str) -> None:
    """Let :func:`mask` take out ``secret`` too, from now on in this process: a webhook's address, say."""
    if len(secret) >= _SHORTEST:
        _hidden.add(secret)


def mask(text: str) -> str:
    """``text`` without the user names, passwords and query strings of any URI in it, and without the AWS_* secrets.

    >>> mask("cannot read s3://key:secret@bucket/a?X-Amz-Signature=1")
    'cannot read s3://***@bucket/a?***'
    """
    for secret in _hidden:
        text = text.replace(secret, "***")
    text = re.sub(r"(\b\w+://)[^/@\s]+@", r"\1***@", text)
    text = re.sub(r"(\b\w+://[^\s?]+\?)\S+", r"\1***", text)
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, "***")
    return text


def reason(error: BaseException) -> str:
    """One masked line that says what ``error`` is, without a traceback."""
    lines = str(error).strip().splitlines()
    return mask(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
