"""What every reader of shards shares: the sample, the open shard, names and labels.

A reader separates two kinds of failure. What is wrong with the *content* (a truncated tar, a corrupt row group, a
null image) becomes a sample with ``error`` set, and good rows around it are still given. What is wrong with the
*storage* (a refused connection, expired credentials) is raised, because those rows may be fine tomorrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from regrad import storage

IMAGE_EXTENSIONS = frozenset(
    ("avif", "bmp", "gif", "jpeg", "jpg", "jfif", "png", "ppm", "pgm", "pnm", "tif", "tiff", "webp")
)
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True)
class Columns:
    """Which column (Parquet) or extension or JSON field (WebDataset) holds what; None: the default of the format."""

    image: str | None = None
    label: str | None = None
    id: str | None = None


DEFAULT_COLUMNS = Columns()


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a shard: an encoded image, or the reason why there is none."""

    row: int | None
    id: str | None
    image: bytes | None = None
    label: int | None = None
    error: str | None = None


class Reader(Protocol):
    """What every format offers."""

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples ``start <= row < stop`` in order; ``stop`` None: to the end."""


def kind_of(name: str) -> str | None:
    """``tar``, ``parquet`` or None, by the end of a file's name.

    >>> kind_of("s3://bucket/train-000.tar.gz"), kind_of("a.PARQUET"), kind_of("cat.jpg")
    ('tar', 'parquet', None)
    """
    lower = name.lower()
    if lower.endswith(TAR_SUFFIXES):
        return "tar"
    return "parquet" if lower.endswith(PARQUET_SUFFIXES) else None


def is_image(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS


class Shard:
    """A shard opened for reading; ``failure`` tells a failing storage from bad content."""

    def __init__(self, uri: str):
        self.uri = uri
        self.failure: Exception | None = None
        self._file = storage.open_file(uri)

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


def as_label(value: Any) -> int | None:
    """``value`` as a class index that fits the table's int32 column, else None: labels are carried, not judged."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**31) <= number < 2**31 else None
