"""The formats that images are read from: what a format must say, what it may say better, and the registry of them all.

Nothing outside this room asks what kind a source is: it asks the format. A format is one class, see
docs/extending.md; ``tests/reading/test_formats.py`` holds every registered one to what is said here.
"""

from __future__ import annotations

import abc
import bisect
import functools
import hashlib
import importlib
import io
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.reading import images
from regrad.reading.naming import leftovers
from regrad.reading.naming.pictures import is_image
from regrad.reading.samples import DEFAULT_COLUMNS, Columns, Sample

ENTRY_POINTS = "regrad.formats"
_BUILT_IN = ("tar", "parquet", "folder")

_formats: dict[str, type[Format]] = {}

#: Of ledger records, the ids of each unit's rows in order; None for a unit whose parts do not hold them all.
ReadIds = Callable[[Sequence[Mapping[str, Any]]], Sequence[Sequence[str] | None]]


@dataclass(frozen=True)
class Part:
    """Some rows of a source, to be copied as one.

    Attributes:
        identity: of the content that was scored.
        files, labels: of a source that is a listing, its files from row ``start`` on.
    """

    identity: str
    start: int = 0
    stop: int | None = None
    files: tuple[str, ...] = ()
    labels: tuple[int | None, ...] = ()


class Mark(NamedTuple):
    """A place in a source where reading may begin: a row, and its first byte."""

    row: int
    byte: int


class Extent(NamedTuple):
    """What a reader of some rows has to read: from the first byte of a row on, up to another byte or to the end."""

    row: int
    begin: int
    end: int | None


class Format(abc.ABC):
    """A format of sources: the class says which files are of it, an instance reads one source.

    :attr:`kind`, :attr:`suffixes` and :meth:`rows` are all that a format must have. Everything else follows from
    these, and is there to be overridden by a format that can do it with less reading.

    Attributes:
        kind: its name.
        suffixes: how the names of its files end, in lower case.
        copied_as: the ending of what :meth:`copy` writes.
        labelled_by_path: whether rows of a source without labels have what its path says (``label=3/``).
        skipped: what the rows read last, or counted, were not made of, by reason.
        label_names: what its labels are called, if it has names for its numbers; known once its :meth:`length` is.
        no_labels: what is said if no source has the labels that were asked for; known as these.
        size: of the source in bytes, where a listing has told.
        marks: the only places where reading may begin, where there are any; known once its :meth:`length` is.
        whole: why a source of some size is one unit of work, in words that follow its name; known as these.
        extent: in which the next rows to be read lie, of a source that has marks.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    copied_as: ClassVar[str] = ".tar"
    labelled_by_path: ClassVar[bool] = False

    def __init__(
        self,
        uri: str,
        columns: Columns = DEFAULT_COLUMNS,
        files: Sequence[str] = (),
        labels: Sequence[int | None] = (),
        first: int = 0,
    ):
        """Nothing is opened yet; ``files`` and ``labels`` are those of a listing, from row ``first`` on."""
        self.uri = uri
        self.columns = columns
        self.files = files
        self.labels = labels or [None] * len(files)
        self.first = first
        self.skipped: Counter[str] = Counter()
        self.label_names: tuple[str, ...] = ()
        self.no_labels: UsageError | None = None
        self.size = 0
        self.marks: tuple[Mark, ...] = ()
        self.whole = ""
        self.extent: Extent | None = None

    def skip(self, reason: str) -> None:
        """Count something of the source that is no row and no part of one; of very many reasons some have no name."""
        leftovers.add_reason(self.skipped, reason)

    @abc.abstractmethod
    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples ``start <= row < stop`` in order; ``stop`` None: to the end.

        What is wrong with the content is a sample with an error, what is wrong with the storage is raised.
        """

    def length(self) -> int | None:
        """How many rows there are, where a look tells: then units of work may be ranges of them.

        Ranges begin at :attr:`marks` where it sets them, and are then read with their :attr:`extent`.

        None: only reading tells, and the source is one unit.

        Raises:
            UsageError: it has not got the columns.
            RegradError: the storage failed.
        """
        return None

    def count(self, at_most: int | None = None) -> tuple[int, float]:
        """How many rows hold a sample, up to ``at_most``, and the bytes of the source that one takes.

        A damaged source counts up to the damage.
        """
        rows = size = 0
        for sample in self.rows(0, at_most):
            if sample.row is not None:
                rows += 1
                size += len(sample.image or b"")
        return rows, size / max(rows, 1)

    def is_empty(self) -> bool:
        """Whether it is sound, and holds nothing at all."""
        return not any(True for _ in self.rows(0, 1))

    def pick(self, rows: Mapping[int, str]) -> Iterator[Sample]:
        """The samples of these rows, which have these ids, in order, and what is said of no single row."""
        wanted = frozenset(rows)
        samples = self.rows(min(wanted), max(wanted) + 1)
        return (sample for sample in samples if sample.row is None or sample.row in wanted)

    def identity(self) -> str:
        """The identity of what was read; if it is the planned one, what was read is what was planned.

        A file is asked for its identity now, after its last byte was read: if that is still the planned one, it was so
        all the time.
        """
        try:
            return storage.identity(self.uri)
        except FileNotFoundError:
            return ""

    def copy(self, rows: Collection[int], file: IO[bytes]) -> int:
        """Write the samples of these ``rows`` as a source of their own, and return how many there were.

        By default a WebDataset tar: each image under its id, with its class beside it.
        """
        wanted, copied = frozenset(rows), 0
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for sample in self.rows(min(wanted), max(wanted) + 1):
                if sample.row in wanted and sample.image is not None:
                    name = _member_name(sample)
                    _add(archive, name, sample.image)
                    if sample.label is not None:
                        _add(archive, f"{name.rpartition('.')[0]}.cls", str(sample.label).encode())
                    copied += 1
        return copied

    @classmethod
    def image_file(cls, uri: str, name: str) -> str | None:
        """The file that the image with the id ``name`` of the source ``uri`` is; None: it is inside of the source."""
        return None

    @classmethod
    def parts(
        cls,
        uri: str,
        records: Sequence[Mapping[str, Any]],
        rows: npt.NDArray[np.int64],
        read_ids: ReadIds,
        columns: Columns = DEFAULT_COLUMNS,
    ) -> Iterator[tuple[Part, npt.NDArray[np.int64]]]:
        """How the ``rows`` of a source with these ledger ``records`` are divided into copies; by default it is one.

        Returns:
            Each part, and those of its rows that are meant.

        Raises:
            storage.Changed: it is not what was scored.
            RegradError: the storage failed.
        """
        yield Part(records[-1]["identity"]), rows


def _member_name(sample: Sample) -> str:
    name = str(sample.id)
    return name if "." in name and is_image(name) else f"{name}.{images.extension(sample.image or b'')}"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


# --------------------------------------------------------------------------------------------- the registry


def register(kind: type[Format]) -> type[Format]:
    """Make a format known, as a decorator of its class."""
    _formats[kind.kind] = kind
    return kind


def formats() -> Mapping[str, type[Format]]:
    """Every format by its kind: those of this package, then those that installed packages register."""
    _load()
    return {kind: _formats[kind] for kind in _BUILT_IN} | _formats  # in this order, whichever was imported first


@functools.cache
def _load() -> None:
    for module in _BUILT_IN:
        importlib.import_module(f"regrad.reading.{module}")
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:  # somebody else's package must not keep this one from working
            warnings.warn(f"the format of {entry.value} cannot be loaded: {error}", stacklevel=2)


def kind_of(name: str) -> str | None:
    """The kind of a file, by the longest suffix that its name ends with; None: no format's.

    >>> kind_of("s3://bucket/train-000.tar.gz"), kind_of("a.PARQUET"), kind_of("cat.jpg")
    ('tar', 'parquet', None)
    """
    return _suffix(name)[1]


def stem(source: str) -> str:
    """The base name of a source without its format's suffix.

    >>> stem("s3://bucket/train-000.tar.gz"), stem("s3://bucket/images/")
    ('train-000', 'images')
    """
    base = source.rstrip("/").rpartition("/")[2]
    return base.removesuffix(base[len(base) - len(_suffix(source)[0]) :])


def _suffix(name: str) -> tuple[str, str | None]:
    lower = name.lower()
    known = ((suffix, kind) for kind, form in formats().items() for suffix in form.suffixes)
    return max((item for item in known if lower.endswith(item[0])), key=lambda item: len(item[0]), default=("", None))


def format_of(source: str) -> type[Format]:
    """The format of a source as a row names it: by its suffix, or a folder."""
    return formats()[kind_of(source) or "folder"]


def open_reader(
    source: str,
    kind: str,
    columns: Columns = DEFAULT_COLUMNS,
    files: Sequence[str] = (),
    labels: Sequence[int | None] = (),
    first: int = 0,
) -> Format:
    """What reads a source of this ``kind``; ``files`` and ``labels`` are a listing's, from row ``first`` on."""
    return formats()[kind](source, columns, files, labels, first)


# -------------------------------------------------------------------------------------------------- sources


@dataclass(frozen=True)
class Source:
    """One shard, or one folder of images.

    Attributes:
        identity: changes when the content does (ETag, or size and time of change).
        rows: how many there are; None where only reading the shard tells (a tar).
        files, labels, identities: of a listing (a folder), one entry per image, in row order.
        tables: of a listing, those beside the images that may hold labels.
        columns: what its rows are read by.
        label_names, no_labels, marks, whole: of :class:`Format`.
    """

    uri: str
    kind: str
    identity: str
    size: int
    rows: int | None = None
    files: tuple[str, ...] = ()
    labels: tuple[int | None, ...] = ()
    identities: tuple[str, ...] = field(default=(), repr=False)
    tables: tuple[str, ...] = field(default=(), repr=False)
    columns: Columns = field(default=DEFAULT_COLUMNS, repr=False)
    label_names: tuple[str, ...] = field(default=(), repr=False)
    no_labels: UsageError | None = field(default=None, repr=False, compare=False)
    marks: tuple[Mark, ...] = field(default=(), repr=False)
    whole: str = ""

    @property
    def tells_change(self) -> bool:
        """Whether another content of it has another identity."""
        return all(map(storage.tells_change, self.identities if self.files else (self.identity,)))

    def identity_of(self, start: int, stop: int | None) -> str:
        """The identity of a range of rows: the shard's, or that of a listing's files in the range."""
        return self.identity_at(range(len(self.files))[start:stop]) if self.files else self.identity

    def identity_at(self, places: Sequence[int]) -> str:
        """The identity of the files at these places of a listing, in this order."""
        files, labels = [self.files[place] for place in places], [self.labels[place] for place in places]
        return listing_identity(files, labels, [self.identities[place] for place in places])

    def extent(self, start: int, stop: int | None) -> Extent | None:
        """Where the rows ``start <= row < stop`` lie, of a source that has marks."""
        if not self.marks:
            return None
        row, begin = self.marks[bisect.bisect_right(self.marks, start, key=_row_of) - 1]
        after = len(self.marks) if stop is None else bisect.bisect_left(self.marks, stop, key=_row_of)
        return Extent(row, begin, self.marks[after].byte if after < len(self.marks) else None)

    def open(self) -> Format:
        """What reads it."""
        reader = open_reader(self.uri, self.kind, self.columns, self.files, self.labels)
        reader.size = self.size
        return reader


def _row_of(mark: Mark) -> int:
    return mark.row


def listing_identity(files: Sequence[str], labels: Sequence[int | None], identities: Sequence[str | None]) -> str:
    """The identity of some files of a listing, in row order."""
    return hashlib.sha256(repr(list(zip(files, labels, identities, strict=True))).encode()).hexdigest()


# -------------------------------------------------------------------------------------------- for reports


def fetch_images(
    source: str, rows: Mapping[int, str], columns: Columns = DEFAULT_COLUMNS
) -> Iterator[tuple[int, bytes]]:
    """``(row, encoded image)`` for ``rows`` (with their ids) of a ``source`` as the score table names them, where there
    is one.

    Raises:
        RegradError: the source is not what it was, or the storage refused or failed.
    """
    if not rows:
        return
    for sample in format_of(source)(source, columns).pick(rows):
        if sample.stage == "list":
            raise RegradError(f"{storage.mask(source)}: {sample.error}")
        if sample.row is not None and sample.image is not None:
            yield sample.row, sample.image


def fetcher(run: Mapping[str, Any]) -> Callable[[str, Mapping[int, str]], Iterator[tuple[int, bytes]]]:
    """:func:`fetch_images` from the columns that the run of this ``run.json`` read its images from."""
    return partial(fetch_images, columns=Columns.of(run))
