"""Files anywhere fsspec reaches (local, ``s3://``, ``gs://``): read whole, written whole or not at all.

Remote requests that fail in a way that may pass are tried again (:mod:`regrad.storage.retry`); what fails for good is
told with its cause and what to do (:mod:`regrad.storage.faults`). Local files are the operating system's matter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import fsspec

from regrad.errors import UsageError
from regrad.storage import retry
from regrad.storage.faults import Changed, failure, is_precondition, remedy
from regrad.storage.identities import identify, tells_change
from regrad.storage.redact import hide, holds_credentials, mask, published, reason

__all__ = [
    "Changed",
    "create",
    "failure",
    "filesystem",
    "hide",
    "identify",
    "identity",
    "identity_in",
    "is_local",
    "is_path",
    "join",
    "list_all",
    "list_files",
    "mask",
    "open_file",
    "published",
    "read_bytes",
    "read_identified",
    "reason",
    "refuse_credentials",
    "remedy",
    "remove",
    "remove_folder",
    "request",
    "tells_change",
    "working_directory",
    "write_atomically",
    "writing",
]

TEMPORARY_PREFIX = "_tmp-"
READ_AHEAD_BYTES = 8 * 2**20
_NAMES_ALONE = ("s3://", "s3a://", "gs://", "gcs://")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def working_directory() -> str:
    """The folder that this process was started in, also when another has been put in its place since.

    Ray does so: nodes that share a disk unpack a submitted job's folder over each other's.
    """
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.environ.get("PWD", os.curdir)


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of ``uri`` and the path inside it; local paths become absolute.

    What has no scheme is a local path, whatever characters are in it.

    Raises:
        UsageError: no installed package serves the scheme, or the URI holds credentials.
    """
    if is_path(uri):
        fs = fsspec.filesystem("file")
        return fs, fs._strip_protocol(uri)
    # Rows name their shard by its URI: what is in it would be in every part, log line and report. Stores whose objects
    # may have a "?" in their names take no signature from a URI; what a user typed is refused all the same.
    refuse_credentials(uri.partition("?")[0] if uri.startswith(_NAMES_ALONE) else uri)
    try:
        if connect := _CONNECT.get(uri.partition("://")[0]):
            fs = connect(uri)
            return fs, fs._strip_protocol(uri)
        if "::" in uri and "://" not in uri.rpartition("::")[2]:  # in a name; it chains file systems where one follows
            kind = fsspec.get_filesystem_class(uri.partition("://")[0])
            return kind(**kind._get_kwargs_from_urls(uri)), kind._strip_protocol(uri)
        return fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{mask(uri)}: cannot open this kind of URI: {reason(error)}") from error


def _connect_s3(uri: str) -> Any:
    from regrad.storage import s3

    return s3.connect(uri)


def _connect_hub(uri: str) -> Any:
    from regrad.storage import hub

    return hub.connect_hub()


_CONNECT: dict[str, Callable[[str], Any]] = {"s3": _connect_s3, "s3a": _connect_s3, "hf": _connect_hub}


def refuse_credentials(uri: str) -> None:
    """Refuse a URI that a user gave with credentials or a signature in it.

    Raises:
        UsageError: there are.
    """
    if not is_path(uri) and holds_credentials(uri):
        raise UsageError(
            f"{mask(uri)}: credentials or signatures in a URI would end up in tables and logs; set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY, or what the store's fsspec package reads, instead"
        )


def is_path(uri: str) -> bool:
    """Whether ``uri`` is a path on this machine, and not a URI.

    >>> is_path("/data/photo?token=1.jpg"), is_path("a::b.tar"), is_path("s3://bucket/a")
    (True, True, False)
    """
    return uri.startswith("/") or "://" not in uri


def request(fs: Any, name: str, *arguments: Any, **keywords: Any) -> Any:
    """``fs.name(*arguments)``, tried again where that may help; raises what the file system raises, or Outage."""
    function: Callable[..., Any] = getattr(fs, name)
    return function(*arguments, **keywords) if is_local(fs) else retry.call(function, *arguments, **keywords)


def is_local(fs: Any) -> bool:
    """Whether ``fs`` is a folder of this machine."""
    return "file" in (fs.protocol if isinstance(fs.protocol, (tuple, list)) else (fs.protocol,))


def join(uri: str, *parts: str) -> str:
    """``uri`` and ``parts`` with single slashes between.

    >>> join("s3://bucket/out/", "scores", "part-1.parquet")
    's3://bucket/out/scores/part-1.parquet'
    """
    return "/".join([uri.rstrip("/"), *parts])


def read_bytes(uri: str) -> bytes:
    """The whole content of ``uri``.

    Raises:
        FileNotFoundError: there is no such file.
        RegradError: the storage refused or failed.
    """
    return _read(uri)[0]


def read_identified(uri: str) -> tuple[bytes, str]:
    """The whole content of ``uri``, and the :func:`identity` that this content has.

    Raises:
        FileNotFoundError, RegradError: see :func:`read_bytes`.
    """
    content, info = _read(uri, identified=True)
    told = identify(info)
    return content, told if tells_change(told) else identity(uri)


def _read(uri: str, identified: bool = False) -> tuple[bytes, dict[str, Any]]:
    fs, path = filesystem(uri)
    try:
        if hasattr(fs, "read_whole"):
            return request(fs, "read_whole", path)
        # Asked after reading: a file that is still what was planned has been so all the time.
        return request(fs, "cat_file", path), request(fs, "info", path) if identified else {}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{mask(uri)}: no such file") from error
    except Exception as error:  # every fsspec back end raises its own family
        raise failure(uri, "read", error) from error


def identity(uri: str) -> str:
    """What tells the content that ``uri`` has now from any other it had, at the cost of one small request.

    Raises:
        FileNotFoundError, RegradError: see :func:`read_bytes`.
    """
    fs, path = filesystem(uri)
    try:
        return identity_in(fs, {"name": path, **request(fs, "info", path)})
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{mask(uri)}: no such file") from error
    except Exception as error:
        raise failure(uri, "read", error) from error


def identity_in(fs: Any, info: Mapping[str, Any]) -> str:
    """The identity of the file that ``fs`` said this ``info`` of, asking it for more where that tells none."""
    told = identify(info)
    if tells_change(told) or is_local(fs):
        return told
    path = info["name"]
    told = identify(request(fs, "info", path))  # of the listings of a web server, names are all that is told
    if not tells_change(told):
        with contextlib.suppress(NotImplementedError, KeyError, TypeError):
            told += str(request(fs, "modified", path) or "")
    return told


def open_file(uri: str, read_ahead: int | None = None) -> Any:
    """``uri`` opened for reading in any order, read ahead where it is remote; a read that fails is tried again.

    Raises:
        RegradError: the storage refused or failed.
    """
    fs, path = filesystem(uri)
    try:
        if is_local(fs):
            return fs.open(path, "rb")
        file = request(fs, "open", path, "rb", block_size=read_ahead or READ_AHEAD_BYTES, cache_type="readahead")
        return file if hasattr(fs, "read_whole") else _Retrying(file)
    except FileNotFoundError as error:
        raise Changed(f"{mask(uri)}: no such file, though it was listed; run again") from error
    except Exception as error:
        raise failure(uri, "open", error) from error


class _Retrying:
    """A file whose reads are tried again; fsspec's files stay where they were when a read fails."""

    def __init__(self, file: Any):
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        return retry.call(self._file.read, size)


def write_atomically(uri: str, content: bytes) -> None:
    """Write ``content`` so that a reader sees the old file or the new one, never a part.

    Object stores make an object visible when its upload is complete. A local file is written under a
    temporary name that Parquet tools skip, then renamed.

    Raises:
        RegradError: the storage refused or failed (full disk, read-only, no permission).
    """
    fs, path = filesystem(uri)
    try:
        if not is_local(fs):
            request(fs, "pipe_file", path, content)
            return
        with _temporary(path, content) as temporary:
            os.replace(temporary, path)
    except Exception as error:
        raise failure(uri, "write", error) from error


@contextlib.contextmanager
def _temporary(path: str, content: bytes) -> Iterator[str]:
    """A file beside ``path`` that holds ``content``, safe on the disk; gone at the end unless it was renamed."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


@contextlib.contextmanager
def writing(uri: str, lasting: bool = True) -> Iterator[IO[bytes]]:
    """A file to write what is too large for :func:`write_atomically`: at ``uri`` once the context ends well, whole.

    For a store, it is kept in ``TMPDIR`` until then.

    Args:
        lasting: whether it is to be there after a power cut too.

    Raises:
        RegradError: the storage refused or failed.
    """
    fs, path = filesystem(uri)
    folder, name = os.path.split(path)
    folder = folder if is_local(fs) else tempfile.gettempdir()
    temporary = os.path.join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name}")
    try:
        with _telling(uri):
            os.makedirs(folder, exist_ok=True)
            file = open(temporary, "xb")  # noqa: SIM115  # closed below, before it is moved
        with file:
            yield file
            with _telling(uri):
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
        with _telling(uri):
            if is_local(fs):
                os.replace(temporary, path)
            else:
                request(fs, "put_file", temporary, path)
    except OSError as error:  # of the context's own writes
        if error.errno in _FULL:
            raise failure(uri, "write", error) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.remove(temporary)


@contextlib.contextmanager
def _telling(uri: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise failure(uri, "write", error) from error


def create(uri: str, content: bytes) -> bool:
    """Write ``content`` whole if nothing is at ``uri`` yet; False if there was.

    Exclusive on local disks and where the store knows conditional writes; another store overwrites, and says True.

    Raises:
        RegradError: the storage refused or failed.
    """
    fs, path = filesystem(uri)
    try:
        if not is_local(fs):
            request(fs, "pipe_file", path, content, mode="create")
            return True
        with _temporary(path, content) as temporary:
            os.link(temporary, path)  # unlike a rename, it fails where there is a file
        return True
    except FileExistsError:
        return False
    except Exception as error:
        if is_precondition(error):
            return False
        raise failure(uri, "write", error) from error


def remove(uri: str) -> None:
    """Delete ``uri``; a file that is not there is no error."""
    fs, path = filesystem(uri)
    try:
        request(fs, "rm_file", path)
    except FileNotFoundError:
        return
    except Exception as error:
        raise failure(uri, "delete", error) from error


def remove_folder(uri: str) -> None:
    """Delete ``uri`` and everything under it; a folder that is not there is no error."""
    fs, path = filesystem(uri)
    try:
        request(fs, "rm", path, recursive=True)
    except FileNotFoundError:
        return
    except Exception as error:
        raise failure(uri, "delete", error) from error


def list_files(uri: str, suffix: str = "") -> list[str]:
    """The file names (not paths) directly under ``uri`` that end with ``suffix`` and are not temporary, sorted."""
    return [name for name in list_all(uri)[0] if name.endswith(suffix)]


def list_all(uri: str) -> tuple[list[str], list[str]]:
    """The names directly under ``uri``, sorted: of files, and of those that were being written, by any process."""
    names = _list(uri)
    files = [name for name in names if not name.startswith(("_", "."))]
    return files, [name for name in names if name.startswith(TEMPORARY_PREFIX)]


def _list(uri: str) -> list[str]:
    fs, path = filesystem(uri)
    try:
        fs.invalidate_cache(path)  # another process may have written since
        entries = request(fs, "ls", path, detail=False)
    except FileNotFoundError:
        return []
    except Exception as error:
        raise failure(uri, "list", error) from error
    return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
