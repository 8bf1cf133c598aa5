"""The sources that a job's INPUT arguments name: shards and image folders, with what tells one content from another."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.reading.folder import files_under, folder_source, full_name
from regrad.reading.formats import Source, formats, kind_of
from regrad.reading.samples import DEFAULT_COLUMNS, Columns, as_text

_THREADS = 16


def list_sources(inputs: Sequence[str], columns: Columns = DEFAULT_COLUMNS, output: str | None = None) -> list[Source]:
    """The sources that ``inputs`` name (files, folders, globs, ``{000..123}`` ranges), each once, in order.

    A folder that holds shards (files of any format) at any depth stands for these; any other is a folder of images,
    whose labels are the positions of its sorted first-level sub-folders; links to folders are not followed. Files under
    ``output`` are no input. A damaged shard, or one without the columns, has ``rows`` None: reading it says why.

    Raises:
        UsageError: nothing there, nothing usable there, or not one shard of its format with the columns.
        RegradError: the storage refused or failed.
    """
    named: dict[str, Source] = {}
    for given in inputs:
        for pattern in _patterns(given):
            for source in _sources(pattern, output):
                named.setdefault(source.uri, dataclasses.replace(source, columns=columns))
    with ThreadPoolExecutor(_THREADS, "regrad-footers") as pool:
        counted = list(pool.map(_with_rows, named.values()))
    usable = {source.kind for source, _ in counted if source.rows is not None}
    for source, mistake in counted:
        # One bad shard among good ones must not stop a night; columns that no shard has are a mistake in the flags.
        if mistake and source.kind not in usable:
            raise mistake
    return [source for source, _ in counted]


def _patterns(given: str) -> list[str]:
    """What ``given`` names, which is itself where there is something with braces in its name."""
    patterns = expand_braces(given)
    if patterns == [given]:
        return patterns
    storage.refuse_credentials(given)
    fs, path = storage.filesystem(given)
    try:
        storage.request(fs, "info", path)
        return [given]
    except Exception:  # listing the patterns tells what is wrong with the storage
        return patterns


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
    storage.refuse_credentials(uri)
    fs, path = storage.filesystem(uri)
    return os.path.abspath(path) if storage.is_local(fs) else uri.rstrip("/")


def _sources(pattern: str, output: str | None) -> Iterator[Source]:
    shown = storage.mask(pattern)
    if not pattern.strip():
        raise UsageError("an INPUT without a name: name a shard, a folder or a pattern")
    storage.refuse_credentials(pattern)
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
                    f"{storage.mask(full_name(fs, info['name']))}: not a {_suffixes()} file; for single images give "
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


def _shard(fs: Any, kind: str, info: dict[str, Any]) -> Source:
    return Source(_named(full_name(fs, info["name"])), kind, storage.identify(info), int(info.get("size") or 0))


def _named(name: str) -> str:
    if as_text(name) != name:
        raise UsageError(f"{as_text(name)}: a name that is not UTF-8, which the score table cannot hold; rename it")
    return name


def _folder(fs: Any, path: str, output: str | None, shown: str) -> Iterator[Source]:
    files = files_under(fs, path, absolute(output) if output else None)
    shards = [(kind, info) for name, info in files.items() if (kind := kind_of(name))]
    if shards:
        yield from (_shard(fs, kind, info) for kind, info in shards)
        return
    source = folder_source(fs, path, files)
    if not source.files:
        raise UsageError(f"{shown}: an empty input: no {_suffixes(', no ')} and no image under it")
    _named(source.uri)
    yield source


def _suffixes(between: str = " or ") -> str:
    """One suffix of every format that has any, in words."""
    return between.join(form.suffixes[0] for form in formats().values() if form.suffixes)


def _with_rows(source: Source) -> tuple[Source, UsageError | None]:
    try:
        return dataclasses.replace(source, rows=source.open().length()), None
    except UsageError as error:
        return source, error
