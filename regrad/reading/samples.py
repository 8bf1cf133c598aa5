"""What every format shares: the sample, the open shard, names and labels.

A reader separates two kinds of failure. What is wrong with the *content* (a truncated tar, a corrupt row group, a
null image, a file that may not be read) becomes a sample with ``error`` set, and good rows around it are still given.
What is wrong with the *storage* (a refused connection, expired credentials) is raised, because those rows may be fine
tomorrow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from regrad import storage
from regrad.errors import RegradError
from regrad.reading.naming.classes import UNKNOWN, Classes, is_missing
from regrad.storage.impostors import BEGIN_BYTES, impostor

MAX_IMAGE_BYTES = 512 * 2**20  # encoded; a header may claim anything, and what it claims would be allocated
# What `open` says of one file of this machine, and not of the disk that it is on.
_FILE_ERRORS = frozenset((errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO))


@dataclass(frozen=True)
class Columns:
    """Which column (Parquet) or extension or JSON field (WebDataset) holds what; None: the default of the format.

    Attributes:
        classes: what labels mean.
    """

    image: str | None = None
    label: str | None = None
    id: str | None = None
    classes: Classes = UNKNOWN

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Columns:
        """Those that the run of this ``run.json`` read its rows by."""
        config = run.get("config", {})
        image, label, identifier = (config.get(f"{name}_column") for name in ("image", "label", "id"))
        return cls(image, label, identifier, Classes.of_run(run))


DEFAULT_COLUMNS = Columns()


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a shard: an encoded image, or the reason why there is none.

    A sample without ``row`` stands for all rows from some place on, or for the whole shard. ``stage`` is ``list`` where
    the shard is not what its name says, so that not one row of it could be looked at. ``digest`` is that of the image.
    ``no_class``: it has a label that is no number and no class of the model.
    """

    row: int | None
    id: str | None
    image: bytes | None = None
    label: int | None = None
    error: str | None = None
    stage: str = "read"
    digest: str | None = None
    no_class: bool = False


def digest_of(image: bytes) -> str:
    """What tells an encoded image from any other: its 128-bit BLAKE2b, in hexadecimal.

    >>> digest_of(b"")
    'cae66941d9efbd404e4d88758ea67670'
    """
    return hashlib.blake2b(image, digest_size=16).hexdigest()


class BadFile(Exception):
    """One file that cannot be read, whatever the storage does: gone, forbidden, a loop of links, no regular file."""


def check_file(path: str) -> os.stat_result:
    """The status of a file of this machine.

    Raises:
        BadFile: it is a device, a pipe or a folder; opening such may hang for ever.
        OSError: it cannot be looked at; see :func:`file_problem`.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise BadFile("not a regular file, so it is not read")
    return status


def file_problem(error: BaseException | None, local: bool) -> str | None:
    """What is wrong with one file; None where ``error`` speaks of the storage, and other files would fail too."""
    if isinstance(error, BadFile):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "the file is gone since it was listed, or it is a link to nothing; run again"
    if local and isinstance(error, OSError) and error.errno in _FILE_ERRORS:
        return f"{os.strerror(error.errno)}: mend the file's permissions or links"
    return None


class Shard:
    """A shard opened for reading; ``failure`` tells a failing storage from bad content.

    Raises:
        BadFile: this file cannot be opened; others can.
        RegradError: the storage refused or failed.
    """

    def __init__(self, uri: str, read_ahead: int | None = None):
        self.uri = uri
        self.failure: Exception | None = None
        fs, path = storage.filesystem(uri)
        local = storage.is_local(fs)
        try:
            if local:
                check_file(path)
            self._file = storage.open_file(uri, read_ahead)
            self.size = int(self._file.seek(0, os.SEEK_END))
            self._file.seek(0)
        except storage.Changed:
            raise
        except Exception as error:
            if problem := file_problem(error.__cause__ if isinstance(error, RegradError) else error, local):
                raise BadFile(problem) from error
            raise storage.failure(uri, "open", error) from error

    def __enter__(self) -> Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._file, name)(*arguments)
        except Exception as error:
            self.failure = error
            raise

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        return self._call("read", size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file."""
        return self._call("seek", offset, whence)

    def instead(self) -> str | None:
        """What it is in place of a shard, and what to do; None where it may be damaged. The place in it is lost."""
        if not self.size:
            return "an empty file: write it again"
        try:
            self.seek(0)
            return impostor(self.read(BEGIN_BYTES))
        except Exception:
            self.raise_if_storage_failed()
            raise

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """As of a file."""
        return True

    def close(self) -> None:
        """As of a file."""
        self._file.close()

    @property
    def closed(self) -> bool:
        """As of a file."""
        return self._file.closed

    def raise_if_storage_failed(self) -> None:
        """Raise the storage's failure, if that is what stopped the reading."""
        if self.failure is not None:
            raise storage.failure(self.uri, "read", self.failure) from self.failure


@contextlib.contextmanager
def reading(uri: str) -> Iterator[Shard]:
    """The open shard, where a file that cannot be opened is an error and no row; a failing storage is told as such.

    Raises:
        RegradError: the file cannot be opened, or the storage refused or failed.
    """
    try:
        with Shard(uri) as shard:
            try:
                yield shard
            except Exception:
                shard.raise_if_storage_failed()
                raise
    except BadFile as error:
        raise RegradError(f"{storage.mask(uri)}: {error}") from error


def as_text(value: Any) -> str:
    """``value`` as text that UTF-8 can encode, as Parquet demands; what cannot be is escaped.

    >>> as_text(b"caf\\xe9"), as_text("\\udcff.png"), as_text(7)
    ('caf\\\\xe9', '\\\\udcff.png', '7')
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value).encode("utf-8", "backslashreplace").decode()


_ROW_ID = re.compile(r"\(row \d+\)$")


def row_id(name: str, row: int) -> str:
    """The id of a row whose own one is missing, or is another row's too: no two are alike.

    Ids that look like these get a row's number too (:func:`is_row_id`), so that every such id ends with its own.

    >>> row_id("cat.png", 7), row_id("", 7)
    ('cat.png (row 7)', '(row 7)')
    """
    return f"{name} (row {row})".strip()


def is_row_id(name: str) -> bool:
    """Whether ``name`` could be taken for another row's :func:`row_id`."""
    return _ROW_ID.search(name) is not None


def labelled(sample: Sample, value: Any, classes: Classes) -> Sample:
    """``sample`` with what the ``value`` of its label means."""
    label = classes.label(value)
    return dataclasses.replace(sample, label=label, no_class=label is None and not is_missing(value))
