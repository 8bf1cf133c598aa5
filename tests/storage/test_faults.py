"""Which errors may pass, and what is told of those that do not."""

import errno
import types
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.storage import faults, retry


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, status: int, code: str, message: str = "No."):
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}


class HttpError(Exception):
    """As gcsfs's and aiohttp's."""

    def __init__(self, status: int):
        super().__init__("No.")
        self.status = status


class AnswerError(OSError):
    """As of Hugging Face's client, httpx and requests, which keep the answer."""

    def __init__(self, status: int, reason: str = "No"):
        super().__init__(f"{status} Client Error")
        self.response = types.SimpleNamespace(status_code=status, reason_phrase=reason)


def httpx_error(name: str, above: str) -> Exception:
    """As httpx's, which has a class above each sort."""
    error: Exception = type(name, (type(above, (Exception,), {}),), {})()
    return error


def caused_by(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ClientError(503, "SlowDown"), "503 SlowDown"),
        (ClientError(502, "502"), "502"),
        (ClientError(400, "RequestTimeout"), "400 RequestTimeout"),
        (caused_by(OSError(errno.EBUSY, "Please reduce"), ClientError(503, "SlowDown")), "503 SlowDown"),
        (ClientError(403, "AccessDenied"), None),
        (caused_by(PermissionError("no"), ClientError(400, "ExpiredToken")), None),
        (caused_by(FileNotFoundError("no"), ClientError(404, "NoSuchBucket")), None),
        (HttpError(429), "429"),
        (HttpError(403), None),
        (ConnectionResetError(), "connection reset"),
        (ConnectionRefusedError(), "connection refused"),
        (TimeoutError(), "timeout"),
        (httpx_error("ReadTimeout", "TimeoutException"), "timeout"),
        (httpx_error("ReadError", "NetworkError"), "connection reset"),
        (httpx_error("RemoteProtocolError", "ProtocolError"), "truncated body"),
        (httpx_error("UnsupportedProtocol", "TransportError"), None),
        (AnswerError(429), "429"),
        (AnswerError(404), None),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (ValueError("a bug"), None),
        (faults.Outage("given up"), None),
    ],
)
def test_what_may_pass(error: BaseException, kind: str | None) -> None:
    assert faults.kind(error) == kind


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ClientError(400, "ExpiredToken"), "ExpiredToken: No; renew the credentials and run the same command again; "),
        (ClientError(403, "InvalidAccessKeyId"), "InvalidAccessKeyId: No; check AWS_ACCESS_KEY_ID and AWS_SECRET_"),
        (ClientError(403, "403", "Forbidden"), "403 Forbidden; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "),
        (ClientError(404, "NoSuchBucket"), "NoSuchBucket: No; check the bucket's name and AWS_ENDPOINT_URL"),
        (ClientError(301, "PermanentRedirect"), "PermanentRedirect: No; set AWS_REGION to the bucket's region"),
        (
            OSError(errno.ENOSPC, "No space left"),
            "OSError: [Errno 28] No space left; free some space and run the ",
        ),
        (OSError(errno.EROFS, "Read-only"), "OSError: [Errno 30] Read-only; change its permissions, or use another"),
        (KeyError("a bug"), "KeyError: 'a bug'"),
    ],
)
def test_what_is_told(error: Exception, told: str) -> None:
    assert str(faults.failure("s3://bucket/x", "write", error)).startswith(f"s3://bucket/x: cannot write: {told}")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("s3://bucket/x", "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, whether"),
        ("hf://datasets/o/n/x", "check the repository's name, and HF_TOKEN: "),
        ("gs://bucket/x", "check the credentials that the store's fsspec package reads, whether"),
    ],
)
def test_whoever_is_refused_is_told_of_that_store_s_credentials(uri: str, told: str) -> None:
    assert str(faults.failure(uri, "read", AnswerError(403))).startswith(f"{uri}: cannot read: 403 No; {told}")
    assert faults.remedy(uri, caused_by(FileNotFoundError(), AnswerError(401))).startswith(f"; {told}")
    assert faults.remedy(uri, AnswerError(404)) == ""


def answer(status: int = 429, **headers: str) -> AnswerError:
    error = AnswerError(status)
    error.response.headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return error


def throttled(headers: dict[str, str]) -> ClientError:
    error = ClientError(503, "SlowDown")
    error.response["ResponseMetadata"]["HTTPHeaders"] = headers
    return error


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (answer(Retry_After="7"), 7),
        (answer(Retry_After="-3"), 0),
        (answer(Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), 0),
        (answer(Retry_After="in a while"), 0),
        (answer(RateLimit='"api";r=0;t=56'), 56),
        (answer(ratelimit='"api"; r=0; t=56'), 56),
        (answer(RateLimit='"api";r=12;t=56'), 0),
        (caused_by(OSError("no"), throttled({"retry-after": "2.5"})), 2.5),
        (ClientError(503, "SlowDown"), 0),
        (HttpError(429), 0),
        (ConnectionResetError(), 0),
    ],
)
def test_how_long_the_store_asks_to_wait(error: BaseException, seconds: float) -> None:
    assert faults.asked_to_wait(error) == seconds


def test_a_store_may_name_the_time() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 85 < faults.asked_to_wait(answer(Retry_After=later)) <= 90


def test_an_object_that_is_another_now_has_changed() -> None:
    assert isinstance(faults.failure("s3://bucket/x", "read", ClientError(412, "PreconditionFailed")), faults.Changed)


def test_trying_again_ends_with_success_or_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: list[Any] = [ConnectionResetError(), TimeoutError(), None]

    def act() -> str:
        error = errors.pop(0)
        if error:
            raise error
        return "done"

    retry.take_counts()
    assert retry.call(act) == "done"
    assert retry.take_counts() == {"connection reset": 1, "timeout": 1}
    assert retry.take_counts() == {}
    errors = [TimeoutError("no answer")] * 100
    with retry.patience(0.3), pytest.raises(faults.Outage, match=r"TimeoutError: no answer \(tried \d+ times in 0 s\)"):
        retry.call(act)
    errors = [PermissionError("no"), None]
    with pytest.raises(PermissionError):
        retry.call(act)
    assert retry.call(act) == "done"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:secret@bucket/a",
        "https://user@host/a.tar",
        "s3://user:sec/ret@bucket/a",
        "https://host/a.tar?X-Amz-Signature=1",
        "az://b/a?sv=1&sig=2",
    ],
)
def test_a_uri_with_credentials_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="credentials or signatures in a URI") as caught:
        storage.filesystem(uri)
    assert not any(secret in str(caught.value) for secret in ("secret", "user", "=1", "=2"))


def test_a_linked_file_has_the_identity_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    before = storage.identity(str(tmp_path / "link"))
    assert storage.read_identified(str(tmp_path / "link")) == (b"abc", before)
    (tmp_path / "file").write_bytes(b"abd")
    assert storage.identity(str(tmp_path / "link")) != before


def test_a_file_of_another_store_is_read_on_where_it_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFile

    fsspec.filesystem("memory").pipe_file("/shard", bytes(range(200)))
    read, failing = MemoryFile.read, iter([True])

    def reading(self: Any, size: int = -1) -> bytes:
        if next(failing, False):
            raise ConnectionResetError
        return read(self, size)

    monkeypatch.setattr(MemoryFile, "read", reading, raising=False)
    file = storage.open_file("memory://shard")
    assert (file.read(100), file.read()) == (bytes(range(100)), bytes(range(100, 200)))


def test_a_file_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(RegradError, match=r"gone\.tar: no such file, though it was listed; run again"):
        storage.open_file(str(tmp_path / "gone.tar"))
