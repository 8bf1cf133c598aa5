"""What an error of a storage means: whether trying again may help, and if not, what the user can do.

Every fsspec back end raises its own family, and some hide the store's answer in the cause; errors are told apart by
the names of their classes, so that no back end has to be imported to judge another's.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from regrad.errors import RegradError
from regrad.storage.redact import mask, reason

_TRANSIENT_STATUS = frozenset((408, 425, 429, 500, 502, 503, 504))
_TRANSIENT_CODES = frozenset(
    (
        *("BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"),
        "XAmzContentSHA256Mismatch",
    )
)
_TRANSIENT_CLASSES = {
    "ConnectionRefusedError": "connection refused",
    "EndpointConnectionError": "no connection",
    "ClientConnectorError": "no connection",
    **dict.fromkeys(("ConnectionResetError", "ConnectionClosedError", "ServerDisconnectedError"), "connection reset"),
    **dict.fromkeys(("BrokenPipeError", "ConnectionAbortedError", "ClientOSError"), "connection reset"),
    **dict.fromkeys(("TimeoutError", "ReadTimeoutError", "ConnectTimeoutError"), "timeout"),
    **dict.fromkeys(("IncompleteRead", "IncompleteReadError", "ClientPayloadError"), "truncated body"),
    **dict.fromkeys(("ContentLengthError", "ResponseStreamingError"), "truncated body"),
    # Of httpx, which has a class above each sort of them.
    **{"ConnectError": "no connection", "TimeoutException": "timeout", "NetworkError": "connection reset"},
    "RemoteProtocolError": "truncated body",
    "ResponseParserError": "unreadable answer",
    "HTTPClientError": "connection failed",
}
_PERMANENT_CLASSES = frozenset(("SSLError", "ClientConnectorCertificateError", "SSLCertVerificationError"))

# Hugging Face's hub: none is left for so many seconds, as in `"resolvers";r=0;t=56`.
_SPENT = re.compile(r";\s*r=0\s*;\s*t=(\d+)")

_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_REFUSED = ("AccessDenied", "AllAccessDisabled", "400", "401", "403", "RepositoryNotFoundError")
_RENEW = "renew the credentials and run the same command again; what is committed stays"
_REGION = "set AWS_REGION to the bucket's region"
_SPACE = "free some space and run the same command again; what is committed stays"
_EXPIRED = "whether they have expired, and what they are allowed to do there"
_ALLOWED = {  # by scheme: each store's client has its credentials from elsewhere
    **dict.fromkeys(("s3", "s3a"), f"{_KEYS}, {_EXPIRED}"),
    "hf": "check the repository's name, and HF_TOKEN: a private or gated one wants that of somebody who may read it",
}
_ALLOWED_ELSEWHERE = f"check the credentials that the store's fsspec package reads, {_EXPIRED}"
_REMEDIES: dict[str | int, str] = {
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"), _RENEW),
    "InvalidToken": f"{_RENEW} (AWS_SESSION_TOKEN)",
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSecurity"), _KEYS),
    **dict.fromkeys(("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"), _KEYS),
    "NoSuchBucket": "check the bucket's name and AWS_ENDPOINT_URL",
    "RevisionNotFoundError": "check the revision, which is what follows the @",
    **dict.fromkeys(("PermanentRedirect", "301", "AuthorizationHeaderMalformed"), _REGION),
    "RequestTimeTooSkewed": "set this machine's clock",
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _SPACE),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "change its permissions, or use another folder"),
}


class Outage(Exception):
    """The store did not answer as it should for as long as there was patience; :func:`failure` names the URI."""


class Changed(RegradError):
    """The content is no longer the one that was planned."""


class IncompleteRead(OSError):
    """Fewer bytes came than the store had announced."""

    def __init__(self, missing: int):
        super().__init__(f"{missing} bytes are missing")


def kind(error: BaseException) -> str | None:
    """What sort of passing trouble ``error`` is, in a few words; None where trying again will not help."""
    for link in _chain(error):
        if isinstance(link, RegradError | Outage):
            return None
        code, status, _ = _answer(link)
        if status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES:
            return f"{status} {code}" if code and code != str(status) else str(status)
        if status:
            return None
        names = [base.__name__ for base in type(link).__mro__]
        if _PERMANENT_CLASSES.intersection(names):
            return None
        for name in names:
            if name in _TRANSIENT_CLASSES:
                return _TRANSIENT_CLASSES[name]
    return None


def cause(error: BaseException) -> str:
    """One masked line: what the store said, else what ``error`` is."""
    for link in _chain(error):
        code, status, message = _answer(link)
        if status:
            named = f"{code}: {message}" if code and not code.isdecimal() else f"{status} {message}"
            return mask(named.rstrip(".: "))
    return reason(error).rstrip(".")


def is_refusal(error: BaseException) -> bool:
    """Whether a store answered that this client may not."""
    return any(_answer(link)[1] in (400, 401, 403) for link in _chain(error))


def failure(uri: str, doing: str, error: BaseException) -> RegradError:
    """The error that tells the user that ``doing`` (read, write, ...) failed at ``uri``, why, and what to do."""
    if isinstance(error, Outage):
        return RegradError(f"{mask(uri)}: cannot {doing}: {error}")
    if isinstance(error, RegradError):
        return error
    if _is_change(error):
        return Changed(f"{mask(uri)}: changed while it was read; run again when it is at rest")
    return RegradError(f"{mask(uri)}: cannot {doing}: {cause(error)}{remedy(uri, error)}")


def remedy(uri: str, error: BaseException) -> str:
    """What the user can do about ``error`` of ``uri``'s store, after a semicolon; empty where nothing is known."""
    allowed = _ALLOWED.get(uri.partition("://")[0], _ALLOWED_ELSEWHERE)
    remedies = _REMEDIES | dict.fromkeys(_REFUSED, allowed)
    return next((f"; {remedies[mark]}" for mark in _marks(error) if mark in remedies), "")


def asked_to_wait(error: BaseException) -> float:
    """Seconds that the store asks to wait before the next request (``Retry-After``, ``RateLimit``), or 0."""
    for link in _chain(error):
        headers = _headers(link)
        if after := headers.get("retry-after"):
            return _seconds_until(after)
        if spent := _SPENT.search(headers.get("ratelimit", "")):
            return float(spent[1])
    return 0.0


def _headers(error: BaseException) -> dict[str, str]:
    """Of a store's answer, by their names in lower case."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        told = response.get("ResponseMetadata", {}).get("HTTPHeaders")
    else:
        told = getattr(error if response is None else response, "headers", None)  # aiohttp's are the error's own
    return {str(name).lower(): str(value) for name, value in told.items()} if isinstance(told, Mapping) else {}


def _seconds_until(after: str) -> float:
    """Of a ``Retry-After``: seconds, or a date."""
    try:
        return max(0.0, float(after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # a date without its zone among them
        return 0.0


def is_precondition(error: BaseException) -> bool:
    """Whether a store refused a conditional request, since there is an object already or it is another one."""
    return any(_answer(link)[1] in (409, 412) for link in _chain(error))


def is_beyond_end(error: BaseException) -> bool:
    """Whether a store was asked for bytes behind the last one."""
    return any(_answer(link)[1] == 416 for link in _chain(error))


def _is_change(error: BaseException) -> bool:
    return is_precondition(error) or any(type(link).__name__ == "FileExpired" for link in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        hidden = getattr(error, "kwargs", None)  # botocore puts the exception it wraps into its message
        if isinstance(hidden, dict) and isinstance(hidden.get("error"), Exception):
            yield hidden["error"]
        yield error
        error = error.__cause__


def _answer(error: BaseException) -> tuple[str, int, str]:
    """The code, HTTP status and message with which a store answered; no status: it is no answer."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        told = response.get("Error", {})
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") or told.get("Code")
        return str(told.get("Code") or ""), _status(status), str(told.get("Message") or "")
    if status := _status(getattr(response, "status_code", None)):  # requests, httpx and the hub's client
        message = getattr(error, "server_message", None) or getattr(response, "reason_phrase", None) or reason(error)
        return "", status, str(message).partition("\n")[0]
    for name in ("status", "status_code", "code"):  # aiohttp, azure, gcsfs
        if status := _status(getattr(error, name, None)):
            return "", status, reason(error)
    return "", 0, ""


def _status(value: object) -> int:
    text = str(value)
    return int(text) if text.isdecimal() and 100 <= int(text) < 600 else 0


def _marks(error: BaseException) -> Iterator[str | int]:
    for link in _chain(error):
        code, status, _ = _answer(link)
        yield from (mark for mark in (code, str(status)) if mark not in ("", "0"))
        yield from (base.__name__ for base in type(link).__mro__)
        if isinstance(link, OSError) and link.errno and not status and link.__cause__ is None:
            yield link.errno
