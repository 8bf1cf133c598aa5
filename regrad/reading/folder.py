"""Folders of images to samples: one file an image, its path below the folder its id."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.reading.formats import Format, Part, ReadIds, Source, kind_of, listing_identity, register
from regrad.reading.metadata import is_table, labels_of_folder
from regrad.reading.naming import leftovers
from regrad.reading.naming.pictures import is_decoded, is_image, why_unread
from regrad.reading.samples import (
    DEFAULT_COLUMNS,
    MAX_IMAGE_BYTES,
    BadFile,
    Columns,
    Sample,
    as_text,
    check_file,
    file_problem,
)
from regrad.storage import at_once

COPIED_FILES = 4096  # of a folder, in one tar
_REQUESTS = 16  # files asked for at the same time; a store's latency hides behind it


@register
class FolderReader(Format):
    """A folder of images: ``files`` (relative paths, which are the ids) from row ``first`` on, with their labels.

    A unit, and a copy, is any range of its files, and brings their names; without, the folder is listed.
    """

    kind = "folder"
    suffixes = ()

    def __init__(
        self,
        uri: str,
        columns: Columns = DEFAULT_COLUMNS,
        files: Sequence[str] = (),
        labels: Sequence[int | None] = (),
        first: int = 0,
    ):
        super().__init__(uri, columns, files, labels, first)
        self._identities: dict[int, str] = {}  # of the files that were read, by row

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples ``start <= row < stop``, several files asked for at a time."""
        last = self.first + len(self.files) if stop is None else min(stop, self.first + len(self.files))
        local = storage.is_local(storage.filesystem(self.uri)[0])
        waiting: list[tuple[int, concurrent.futures.Future[tuple[bytes | None, str]]]] = []
        pool = concurrent.futures.ThreadPoolExecutor(_REQUESTS, "regrad-folder")
        try:
            for row in range(max(start, self.first), last):
                name = self.files[row - self.first]
                waiting.append((row, pool.submit(_read_file, self.uri, name, local)))
                if len(waiting) >= 2 * _REQUESTS:
                    yield self._sample(*waiting.pop(0))
            while waiting:
                yield self._sample(*waiting.pop(0))
        finally:
            pool.shutdown(cancel_futures=True)  # where one failed, the others are not wanted any more

    def _sample(self, row: int, content: concurrent.futures.Future[tuple[bytes | None, str]]) -> Sample:
        file = self.files[row - self.first]
        fs, folder = storage.filesystem(self.uri)
        local = storage.is_local(fs)
        try:
            image, self._identities[row] = content.result()
            if image is None:
                return Sample(row, as_text(file), error=why_unread(file), stage="decode")
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
                self._identities[row] = storage.identity_in(fs, listed)
            return Sample(row, as_text(file), error=problem)

    def length(self) -> int:
        """The number of its files."""
        return len(self.files)

    def count(self, at_most: int | None = None) -> tuple[int, float]:
        """The number of its files; their sizes are not asked for."""
        return len(self.files) if at_most is None else min(len(self.files), at_most), 0.0

    def pick(self, rows: Mapping[int, str]) -> Iterator[Sample]:
        """The samples of these rows, by their ids: where a file was in a listing, once, says nothing of it now.

        Several are asked for at a time; without threads, which an exit would wait for.
        """
        fs, path = storage.filesystem(self.uri)
        escaped = any("\\" in name for name in rows.values())  # of a name that is not UTF-8, perhaps
        names = {as_text(file): file for file in list_folder(self.uri).files} if escaped else {}
        there = sorted(rows)
        for start in range(0, len(there), _REQUESTS):
            batch = there[start : start + _REQUESTS]
            places = [storage.join(path, names.get(rows[row], rows[row])) for row in batch]
            for row, content in zip(batch, fs.cat_ranges(places, None, None, on_error="return"), strict=True):
                if isinstance(content, FileNotFoundError):
                    continue
                if isinstance(content, BaseException):
                    where = storage.mask(storage.join(self.uri, rows[row]))
                    raise RegradError(f"{where}: cannot read: {storage.reason(content)}") from content
                yield Sample(row, rows[row], content)

    def identity(self) -> str:
        """That of its files, each identified by the answer that brought it, which costs nothing."""
        identities = [self._identities.get(row) or self._ask(file) for row, file in enumerate(self.files, self.first)]
        return listing_identity(self.files, self.labels, identities)

    def _ask(self, file: str) -> str | None:
        """The identity of a file that was not read; None where it is gone."""
        try:
            return storage.identity(storage.join(self.uri, file))
        except FileNotFoundError:
            return None

    @classmethod
    def image_file(cls, uri: str, name: str) -> str | None:
        """Its path below the folder, unless that may be escaped in the id."""
        return None if "\\" in name else storage.join(uri, name)

    @classmethod
    def parts(
        cls,
        uri: str,
        records: Sequence[Mapping[str, Any]],
        rows: npt.NDArray[np.int64],
        read_ids: ReadIds,
        columns: Columns = DEFAULT_COLUMNS,
    ) -> Iterator[tuple[Part, npt.NDArray[np.int64]]]:
        """Every :data:`COPIED_FILES` of the files that were scored, in the order of their rows; of files that all are
        still what the records say. In a part, rows count without those that no unit has any more.
        """
        source = list_folder(uri, columns)
        records = sorted(records, key=lambda record: record["start"])
        located = locate(source, records, read_ids)
        if not all(unit.current for unit in located):
            raise storage.Changed(f"{storage.mask(uri)}: its files have changed")
        places = [place for unit in located for place in unit.places]
        starts = np.array([record["start"] for record in records])
        before = np.cumsum([0, *(len(unit.places) for unit in located)])
        unit_of = np.searchsorted(starts, rows, side="right") - 1
        rows = rows - starts[unit_of] + before[unit_of]
        for start in range(0, len(places), COPIED_FILES):
            stop = start + COPIED_FILES
            part = Part(
                source.identity_at(places[start:stop]),
                start,
                stop,
                tuple(source.files[place] for place in places[start:stop]),
                tuple(source.labels[place] for place in places[start:stop]),
            )
            yield part, rows[(rows >= start) & (rows < stop)]


@dataclass(frozen=True)
class Located:
    """Where the files of a unit are in a listing now.

    Attributes:
        places: of those that are still there, in the order of the unit's rows.
        current: whether all of them are, as they were when the unit was planned.
    """

    places: Sequence[int]
    current: bool


def locate(source: Source, records: Sequence[Mapping[str, Any]], read_ids: ReadIds) -> list[Located]:
    """Where the units with these ledger records are in ``source``, a listing that may have grown or lost files since.

    Where a unit is is told by the names of its files, which its parts have. Nothing is read for one whose rows are
    still the places of its files.
    """
    located: dict[int, Located] = {}
    for number, record in enumerate(records):
        start, stop = record["start"], record["stop"]
        if source.identity_of(start, stop) == record["identity"]:
            located[number] = Located(range(start, min(stop, len(source.files))), True)
    left = [number for number in range(len(records)) if number not in located]
    place_of = {as_text(file): place for place, file in enumerate(source.files)} if left else {}
    for number, ids in zip(left, read_ids([records[number] for number in left]) if left else (), strict=True):
        places = [place_of[name] for name in ids or () if name in place_of]
        whole = ids is not None and len(places) == len(ids)
        located[number] = Located(places, whole and source.identity_at(places) == records[number]["identity"])
    return [located[number] for number in range(len(records))]


@dataclass(frozen=True)
class Files:
    """What is under a folder, each file by its name in the file system with what the listing says of it, sorted.

    Attributes:
        data: what may be data.
        left_out: why other files are not.
    """

    data: dict[str, dict[str, Any]]
    left_out: dict[str, str]


def files_under(fs: Any, path: str, output: str | None = None, chosen: bool = True) -> Files:
    """The files under ``path``: what may be data, and what tools and users left there; of ``output`` none.

    Args:
        chosen: somebody named the folder, so that its own name and what it is do not matter.
    """
    own = output.rstrip("/") + "/" if output else None
    prefix = path.rstrip("/") + "/"
    prefix = prefix if chosen else prefix[: prefix.rstrip("/").rfind("/") + 1]
    listed = sorted(storage.request(fs, "find", path, detail=True).items())
    there = {
        name: info
        for name, info in listed
        if not name.endswith("/") and not (own and (full_name(fs, name) + "/").startswith(own))
    }
    below = {name: name.removeprefix(prefix) for name in there}
    earlier = tuple(leftovers.outputs(below.values()))
    left_out: dict[str, str] = {}
    for name, info in there.items():
        why = leftovers.OUTPUT if below[name].startswith(earlier) else leftovers.why_left(below[name])
        if why is None and _is_linked_folder(fs, name, info):
            why = "a link to a folder, which is not followed"
        if why:
            left_out[name] = why
    return Files({name: info for name, info in there.items() if name not in left_out}, left_out)


def _is_linked_folder(fs: Any, name: str, info: Mapping[str, Any]) -> bool:
    return bool(info.get("islink")) and storage.is_local(fs) and os.path.isdir(name)


def other_pictures(files: Iterable[str]) -> dict[str, str]:
    """Which of the ``files`` are other pictures of what a decoded one shows, as cameras keep it, and why that is so.

    >>> other_pictures(["a/1.jpg", "a/1.dng", "a/2.dng"])
    {'a/1.dng': 'another picture of a sample: .dng'}
    """
    there = list(files)
    decoded = {name.rpartition(".")[0] for name in there if is_decoded(name)}
    return {
        name: f"another picture of a sample: .{name.rpartition('.')[2].lower()}"
        for name in there
        if is_image(name) and not is_decoded(name) and name.rpartition(".")[0] in decoded
    }


def folder_source(fs: Any, path: str, files: Mapping[str, dict[str, Any]]) -> Source:
    """The images among ``files`` as a source without labels: row k is the k-th of their sorted paths."""
    prefix = path.rstrip("/") + "/"
    others = other_pictures(files)
    images = sorted(
        (name.removeprefix(prefix), info) for name, info in files.items() if is_image(name) and name not in others
    )
    return Source(
        _source_name(full_name(fs, path)),
        FolderReader.kind,
        "",
        sum(int(info.get("size") or 0) for _, info in images),
        len(images),
        tuple(name for name, _ in images),
        (None,) * len(images),
        tuple(_identities(fs, [info for _, info in images])),
        tuple(sorted(name.removeprefix(prefix) for name in files if is_table(name))),
    )


def _identities(fs: Any, infos: Sequence[dict[str, Any]]) -> list[str]:
    """Of several files, which are asked for more at the same time where the listing does not tell."""
    identities = [storage.identify(info) for info in infos]
    if all(map(storage.tells_change, identities)):
        return identities
    return list(at_once.answers(lambda info: storage.identity_in(fs, info), infos))


def list_folder(uri: str, columns: Columns = DEFAULT_COLUMNS) -> Source:
    """The images under ``uri``, as they are planned, with the labels that its folders give.

    Raises:
        RegradError: the storage refused or failed.
    """
    fs, path = storage.filesystem(uri)
    try:
        fs.invalidate_cache()
        source = folder_source(fs, path, files_under(fs, path).data)
        labels, _ = labels_of_folder(uri, source.files, source.tables, columns, columns.classes)
        return dataclasses.replace(source, labels=labels.of_files)
    except RegradError:
        raise
    except Exception as error:
        raise storage.failure(uri, "list", error) from error


def full_name(fs: Any, path: str) -> str:
    """``path`` of ``fs`` as rows name it."""
    return os.path.abspath(path) if storage.is_local(fs) else str(fs.unstrip_protocol(path))


def _source_name(name: str) -> str:
    """A folder as rows name it: one that is called like a shard keeps the slash that tells it from one."""
    bare = name.rstrip("/")
    return f"{bare}/" if kind_of(bare) else bare


def _listed(fs: Any, path: str) -> dict[str, Any] | None:
    """What the listing of its folder says of a file, as when it was planned: links to nothing are listed too."""
    try:
        entries = storage.request(fs, "ls", path.rpartition("/")[0], detail=True)
    except FileNotFoundError:
        return None
    return next((entry for entry in entries if entry["name"] == path), None)


def _read_file(folder: str, name: str, local: bool) -> tuple[bytes | None, str]:
    """The content of a file, None of one that is not decoded anyhow, and its identity."""
    uri = storage.join(folder, name)
    try:
        path = storage.filesystem(uri)[1]
    except UsageError as error:
        raise BadFile("its name cannot be told from a signature, which is not followed: rename it") from error
    if why_unread(name):
        return None, storage.identity(uri)
    if local:
        size = check_file(path).st_size  # a pipe without a writer would never answer
        if size > MAX_IMAGE_BYTES:
            raise BadFile(f"the file has {size} bytes, more than {MAX_IMAGE_BYTES}")
    return storage.read_identified(uri)
