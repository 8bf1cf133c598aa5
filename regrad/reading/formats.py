"""Reading by format: the registry of readers, image folders, and images read back for a report.

A new format is one class with ``rows(start, stop)`` and one line in :func:`open_reader` and ``samples.kind_of``.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from regrad import storage
from regrad.errors import RegradError
from regrad.reading.inputs import folder_identity
from regrad.reading.parquet import ParquetReader
from regrad.reading.samples import (
    DEFAULT_COLUMNS,
    MAX_IMAGE_BYTES,
    BadFile,
    Columns,
    Reader,
    Sample,
    as_text,
    check_file,
    file_problem,
    is_image,
    kind_of,
)
from regrad.reading.tar import TarReader

_FOLDER_REQUESTS = 16  # files of a folder asked for at the same time; a store's latency hides behind it


def open_reader(
    source: str,
    kind: str,
    columns: Columns = DEFAULT_COLUMNS,
    files: Sequence[str] = (),
    labels: Sequence[int | None] = (),
    first: int = 0,
) -> Reader:
    """The reader for a source of this ``kind``; ``files`` and ``labels`` are a folder's, from row ``first`` on."""
    if kind == "tar":
        return TarReader(source, columns)
    if kind == "parquet":
        return ParquetReader(source, columns)
    return FolderReader(source, files, labels, first)


class FolderReader:
    """A folder of images: ``files`` (relative paths, which are the ids) from row ``first`` on, with their labels."""

    def __init__(self, uri: str, files: Sequence[str], labels: Sequence[int | None], first: int = 0):
        self.uri = uri
        self.files = files
        self.labels = labels or [None] * len(files)
        self.first = first
        self.identities: dict[int, str] = {}  # of the files that were read, by row

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples ``start <= row < stop``, several files asked for at a time."""
        last = self.first + len(self.files) if stop is None else min(stop, self.first + len(self.files))
        local = storage.is_local(storage.filesystem(self.uri)[0])
        waiting: list[tuple[int, concurrent.futures.Future[tuple[bytes, str]]]] = []
        pool = concurrent.futures.ThreadPoolExecutor(_FOLDER_REQUESTS, "regrad-folder")
        try:
            for row in range(max(start, self.first), last):
                name = self.files[row - self.first]
                waiting.append((row, pool.submit(_read_file, self.uri, name, local)))
                if len(waiting) >= 2 * _FOLDER_REQUESTS:
                    yield self._sample(*waiting.pop(0))
            while waiting:
                yield self._sample(*waiting.pop(0))
        finally:
            pool.shutdown(cancel_futures=True)  # where one failed, the others are not wanted any more

    def _sample(self, row: int, content: concurrent.futures.Future[tuple[bytes, str]]) -> Sample:
        file = self.files[row - self.first]
        fs, folder = storage.filesystem(self.uri)
        local = storage.is_local(fs)
        try:
            image, self.identities[row] = content.result()
            return Sample(row, as_text(file), image, self.labels[row - self.first])
        except Exception as error:
            cause = error.__cause__ if isinstance(error, RegradError) else error
            problem = file_problem(cause, local)
            if problem is None and isinstance(error, RegradError):
                raise
            if problem is None:
                raise storage.failure(storage.join(self.uri, file), "read", error) from error
            listed = _listed(fs, f"{folder}/{file}")
            if listed:  # else it is gone, and the unit is planned anew
                self.identities[row] = storage.identify(listed)
            return Sample(row, as_text(file), error=problem)


def _listed(fs: Any, path: str) -> dict[str, Any] | None:
    """What the listing of its folder says of a file, as when it was planned: links to nothing are listed too."""
    try:
        entries = storage.request(fs, "ls", path.rpartition("/")[0], detail=True)
    except FileNotFoundError:
        return None
    return next((entry for entry in entries if entry["name"] == path), None)


def _read_file(folder: str, name: str, local: bool) -> tuple[bytes, str]:
    uri = storage.join(folder, name)
    if "::" in name:
        raise BadFile("a name with '::', which chains file systems, cannot be opened: rename the file")
    if local:
        size = check_file(storage.filesystem(uri)[1]).st_size  # a pipe without a writer would never answer
        if size > MAX_IMAGE_BYTES:
            raise BadFile(f"the file has {size} bytes, more than {MAX_IMAGE_BYTES}")
    return storage.read_identified(uri)


def identity_read(reader: Reader, source: str) -> str:
    """The identity of the rows that ``reader`` has just read; equal to the planned one, they are what was planned.

    A shard is asked for its identity now, after the last byte was read: if it still has the planned one, it had it all
    the time. The files of a folder were each identified by the answer that brought them, which costs nothing.
    """
    if not isinstance(reader, FolderReader):
        try:
            return storage.identity(source)
        except FileNotFoundError:
            return ""
    found = [reader.identities.get(row) for row in range(reader.first, reader.first + len(reader.files))]
    return folder_identity(reader.files, reader.labels, found)


# -------------------------------------------------------------------------------------------- for reports


def list_folder(uri: str) -> list[str]:
    """The relative paths of the images under ``uri``, sorted: row k of a folder is the k-th of them.

    Raises:
        RegradError: the storage refused or failed.
    """
    fs, path = storage.filesystem(uri)
    prefix = path.rstrip("/") + "/"
    try:
        found = storage.request(fs, "find", path)
    except Exception as error:
        raise storage.failure(uri, "list", error) from error
    return sorted(
        name.removeprefix(prefix)
        for name in found
        if is_image(name) and not os.path.basename(name).startswith(("_", "."))
    )


def fetch_images(source: str, rows: Sequence[int], columns: Columns = DEFAULT_COLUMNS) -> Iterator[tuple[int, bytes]]:
    """``(row, encoded image)`` for ``rows`` of a ``source`` as the score table names them, where there is one.

    Raises:
        RegradError: the source is not what it was, or the storage refused or failed.
    """
    wanted = sorted(set(rows))
    if not wanted:
        return
    kind = kind_of(source)
    if kind not in ("tar", "parquet"):
        yield from _fetch_files(source, wanted)
        return
    if kind == "tar":
        samples = TarReader(source, columns).rows(wanted[0], wanted[-1] + 1)
    else:
        samples = ParquetReader(source, columns).pick(wanted)
    chosen = frozenset(wanted)
    for sample in samples:
        if sample.stage == "list":
            raise RegradError(f"{storage.mask(source)}: {sample.error}")
        if sample.row in chosen and sample.image is not None:
            yield sample.row, sample.image


def fetcher(run: Mapping[str, Any]) -> Callable[[str, Sequence[int]], Iterator[tuple[int, bytes]]]:
    """:func:`fetch_images` from the columns that the run of this ``run.json`` read its images from."""
    config = run.get("config", {})
    columns = Columns(*(config.get(f"{name}_column") for name in ("image", "label", "id")))
    return partial(fetch_images, columns=columns)


def _fetch_files(folder: str, rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """The images of a folder, several asked for at a time; without threads, which an exit would have to wait for."""
    fs, path = storage.filesystem(folder)
    names = list_folder(folder)
    there = [row for row in rows if row < len(names)]
    for start in range(0, len(there), _FOLDER_REQUESTS):
        batch = there[start : start + _FOLDER_REQUESTS]
        paths = [storage.join(path, names[row]) for row in batch]
        for row, content in zip(batch, fs.cat_ranges(paths, None, None, on_error="return"), strict=True):
            if isinstance(content, FileNotFoundError):
                continue
            if isinstance(content, BaseException):
                where = storage.mask(storage.join(folder, names[row]))
                raise RegradError(f"{where}: cannot read: {storage.reason(content)}") from content
            yield row, content
