"""The sources that a job's INPUT arguments name: shards and image folders, with what tells one content from another."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.reading.parquet import count_rows
from regrad.reading.samples import DEFAULT_COLUMNS, Columns, as_text, is_image, kind_of

_THREADS = 16


@dataclass(frozen=True)
class Source:
    """One shard, or one folder of images.

    Attributes:
        identity: changes when the content does (ETag, or size and time of change).
        rows: how many there are; None where only reading the shard tells (a tar).
        files, labels, identities: of a folder, one entry per image, in row order.
    """

    uri: str
    kind: str
    identity: str
    size: int
    rows: int | None = None
    files: tuple[str, ...] = ()
    labels: tuple[int | None, ...] = ()
    identities: tuple[str, ...] = field(default=(), repr=False)

    def identity_of(self, start: int, stop: int | None) -> str:
        """The identity of a range of rows: the shard's, or that of the folder's files in the range."""
        if self.kind != "folder":
            return self.identity
        return folder_identity(self.files[start:stop], self.labels[start:stop], self.identities[start:stop])


def folder_identity(files: Sequence[str], labels: Sequence[int | None], identities: Sequence[str | None]) -> str:
    """The identity of some files of a folder, in row order."""
    return hashlib.sha256(repr(list(zip(files, labels, identities, strict=True))).encode()).hexdigest()


def list_sources(inputs: Sequence[str], columns: Columns = DEFAULT_COLUMNS, output: str | None = None) -> list[Source]:
    """The sources that ``inputs`` name (files, folders, globs, ``{000..123}`` ranges), each once, in order.

    A folder that holds tars or Parquet files at any depth stands for these; any other is a folder of images, whose
    labels are the positions of its sorted first-level sub-folders; links to folders are not followed. Files under
    ``output`` are no input. A damaged Parquet file, or one without the columns, has ``rows`` None: reading it says why.

    Raises:
        UsageError: nothing there, nothing usable there, or not one Parquet file with the columns.
        RegradError: the storage refused or failed.
    """
    found: dict[str, Source] = {}
    for given in inputs:
        for pattern in expand_braces(given):
            for source in _sources(pattern, output):
                found.setdefault(source.uri, source)
    with ThreadPoolExecutor(_THREADS, "regrad-footers") as pool:
        counted = list(pool.map(lambda source: _with_rows(source, columns), found.values()))
    mistakes = [problem for _, problem in counted if problem]
    # One bad shard among good ones must not stop a night; columns that no shard has are a mistake in the flags.
    if mistakes and not any(source.kind == "parquet" and source.rows is not None for source, _ in counted):
        raise mistakes[0]
    return [source for source, _ in counted]


def expand_braces(pattern: str) -> list[str]:
    """``pattern`` with shell braces written out.

    >>> expand_braces("train-{008..010}.tar"), expand_braces("{a,b}/x.parquet")
    (['train-008.tar', 'train-009.tar', 'train-010.tar'], ['a/x.parquet', 'b/x.parquet'])
    """
    brace = re.search(r"\{([^{}]*)\}", pattern)
    if brace is None:
        return [pattern]
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", brace[1])
    if bounds:
        first, last = int(bounds[1]), int(bounds[2])
        parts = [str(number).zfill(len(bounds[1])) for number in range(first, last + 1)]
    elif "," in brace[1]:
        parts = brace[1].split(",")
    else:
        return [pattern]
    names = (pattern[: brace.start()] + part + pattern[brace.end() :] for part in parts)
    return list(itertools.chain.from_iterable(map(expand_braces, names)))


def absolute(uri: str) -> str:
    """``uri`` as rows name it: local paths absolute and without a scheme, the same from every working directory."""
    fs, path = storage.filesystem(uri)
    return os.path.abspath(path) if storage.is_local(fs) else uri.rstrip("/")


def _sources(pattern: str, output: str | None) -> Iterator[Source]:
    shown = storage.mask(pattern)
    fs, path = storage.filesystem(pattern)
    try:
        fs.invalidate_cache()  # a shard may have changed since this process listed it last
        infos = _infos(fs, path)
        if not infos:
            raise FileNotFoundError
        for info in infos:
            if info["type"] == "directory":
                yield from _folder(fs, info["name"], output, shown)
            elif (kind := kind_of(info["name"])) is None:
                raise UsageError(
                    f"{storage.mask(_name(fs, info['name']))}: not a .tar or .parquet file; for single images give "
                    "the folder that holds them"
                )
            else:
                yield _shard(fs, kind, info)
    except FileNotFoundError as error:
        raise UsageError(f"{shown}: no such file or folder, and no object under this name") from error
    except RegradError:
        raise
    except Exception as error:
        raise storage.failure(pattern, "list", error) from error


def _infos(fs: Any, path: str) -> list[dict[str, Any]]:
    try:
        return [storage.request(fs, "info", path)]
    except FileNotFoundError:
        if not re.search(r"[*?\[]", path):
            raise
    found = storage.request(fs, "glob", path, detail=True)
    return [found[name] for name in sorted(found)]


def _name(fs: Any, path: str) -> str:
    return os.path.abspath(path) if storage.is_local(fs) else fs.unstrip_protocol(path)


def _source_name(fs: Any, path: str) -> str:
    name = _name(fs, path).rstrip("/")
    if as_text(name) != name:
        raise UsageError(f"{as_text(name)}: a name that is not UTF-8, which the score table cannot hold; rename it")
    return name


def _shard(fs: Any, kind: str, info: dict[str, Any]) -> Source:
    return Source(_source_name(fs, info["name"]), kind, storage.identify(info), int(info.get("size") or 0))


def _folder(fs: Any, path: str, output: str | None, shown: str) -> Iterator[Source]:
    hidden = absolute(output) + "/" if output else None
    files = {
        name: info
        for name, info in sorted(storage.request(fs, "find", path, detail=True).items())
        if not os.path.basename(name).startswith(("_", "."))
        and not (hidden and (_name(fs, name) + "/").startswith(hidden))
    }
    shards = [(kind_of(name), info) for name, info in files.items()]
    if any(kind for kind, _ in shards):
        yield from (_shard(fs, kind, info) for kind, info in shards if kind)
        return
    prefix = path.rstrip("/") + "/"
    images = [(name.removeprefix(prefix), info) for name, info in files.items() if is_image(name)]
    if not images:
        raise UsageError(f"{shown}: an empty input: no .tar, no .parquet and no image under it")
    images.sort()
    classes = sorted({name.partition("/")[0] for name, _ in images if "/" in name})
    index = {name: position for position, name in enumerate(classes)}
    yield Source(
        _source_name(fs, path),
        "folder",
        "",
        sum(int(info.get("size") or 0) for _, info in images),
        len(images),
        tuple(name for name, _ in images),
        tuple(index.get(name.partition("/")[0]) if "/" in name else None for name, _ in images),
        tuple(storage.identify(info) for _, info in images),
    )


def _with_rows(source: Source, columns: Columns) -> tuple[Source, UsageError | None]:
    if source.kind != "parquet":
        return source, None
    try:
        return dataclasses.replace(source, rows=count_rows(source.uri, columns)), None
    except UsageError as error:
        return source, error
