"""The sources that a job's INPUT arguments name: shards and image folders, with what tells one content from another."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from regrad import storage
from regrad.cli import say
from regrad.errors import RegradError, UsageError
from regrad.reading.fields import NoImages
from regrad.reading.folder import files_under, folder_source, full_name, other_pictures
from regrad.reading.formats import Source, formats, kind_of, stem
from regrad.reading.looked import Look, Looked
from regrad.reading.metadata import labels_of_folder
from regrad.reading.naming import leftovers
from regrad.reading.naming.classes import Classes, mapped_in_words
from regrad.reading.naming.partitions import LABEL, partition_value
from regrad.reading.naming.pictures import is_image
from regrad.reading.samples import DEFAULT_COLUMNS, Columns, as_text

_THREADS = 16
_SILENT = 15.0  # seconds of looking into shards without a word
_TABLE = "a table without images"
_BESIDE = "an image beside shards"


@dataclasses.dataclass(frozen=True)
class Listing:
    """What the inputs of a run hold.

    Attributes:
        sources: each once, in order.
        left_out: what else is there, each file by its name, and why it is no input.
        notes: what was assumed of labels, or not found, a line each.
        looked: what is known of shards, those of earlier runs included.
    """

    sources: list[Source]
    left_out: dict[str, str]
    notes: tuple[str, ...] = ()
    looked: Looked = dataclasses.field(default_factory=Looked, compare=False)

    def labelled(self, classes: Classes) -> Listing:
        """The same with the labels that they have for a model of these ``classes``."""
        sources, notes, read = list[Source](), list[str](), set[str]()
        names: Counter[str] = Counter()
        for source in self.sources:
            labels, tables = labels_of_folder(source.uri, source.files, source.tables, source.columns, classes)
            read.update(storage.join(source.uri, table) for table in tables)
            notes += [f"{storage.mask(source.uri)}: {labels.told}"] if labels.told else []
            names.update(filter(None, [mapped_in_words(classes, source.label_names)]))
            columns = dataclasses.replace(source.columns, classes=classes)
            sources.append(dataclasses.replace(source, columns=columns, labels=labels.of_files))
        notes += [f"labels of {count:,} {'shard' if count == 1 else 'shards'}: {told}" for told, count in names.items()]
        if by_path := sum(map(_is_labelled_by_path, sources)):
            which = f"labels of {by_path:,} {'shard' if by_path == 1 else 'shards'}"
            notes.append(f"{which}: what the path says, where there is no such column")
        without = sum(source.no_labels is not None for source in sources)
        if without:
            flag = f"--label-column {sources[0].columns.label}"
            notes.append(f"{flag}: {without:,} of {len(sources):,} sources have no such column, and no labels")
        left_out = {name: why for name, why in self.left_out.items() if name not in read}
        return dataclasses.replace(self, sources=sources, notes=tuple(notes), left_out=left_out)

    @property
    def unidentified(self) -> list[Source]:
        """The sources whose changes cannot be noticed."""
        return [source for source in self.sources if not source.tells_change]

    @property
    def warnings(self) -> list[str]:
        """What the inputs do not tell, a line each."""
        told = []
        if some := self.unidentified:
            told.append(
                f"{len(some):,} of {len(self.sources):,} sources (the first is {storage.mask(some[0].uri)}) have "
                "nothing but their size to tell one content from another, so changes are not noticed; --rescan scores "
                "them again"
            )
        if kind := leftovers.lake(self.left_out):
            told.append(
                f"{kind}'s log is among the inputs, and is not read: files that it has removed are scored as well; "
                "give the files that the table consists of"
            )
        return told

    @property
    def whole(self) -> Counter[str]:
        """How many large sources are one unit each for each reason why they may not be cut."""
        return Counter(source.whole for source in self.sources if source.whole)

    @property
    def skipped(self) -> Counter[str]:
        """How many files were left out for each reason."""
        return leftovers.by_reason(self.left_out.values())


@dataclasses.dataclass
class _Part:
    """What one pattern names: the shards, or the images of a folder that has none.

    Attributes:
        listed: the names of the shards that stand in a folder or fit a pattern; others were named one by one.
        pictures: the images beside them.
    """

    shards: list[Source] = dataclasses.field(default_factory=list)
    listed: set[str] = dataclasses.field(default_factory=set)
    folders: list[tuple[Source, list[str]]] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)


def list_sources(inputs: Sequence[str], columns: Columns = DEFAULT_COLUMNS, output: str | None = None) -> list[Source]:
    """The sources of :func:`list_inputs` alone."""
    return list_inputs(inputs, columns, output).sources


def list_inputs(
    inputs: Sequence[str],
    columns: Columns = DEFAULT_COLUMNS,
    output: str | None = None,
    looked: Looked | None = None,
) -> Listing:
    """What ``inputs`` name (files, folders, globs, ``{000..123}`` ranges).

    A folder that holds shards (files of any format) at any depth stands for these; any other is a folder of images,
    whose labels its sub-folders tell (:func:`labels_of`); links to folders are not followed. Files under ``output`` are
    no input, and are not counted either. A damaged shard, or one without the columns, has ``rows`` None: reading it
    says why. A table that tells of images which lie elsewhere (as img2dataset leaves one beside each tar) is no shard,
    unless it is named itself.

    Args:
        looked: what is known of shards; only the others are opened.

    Raises:
        UsageError: nothing there, nothing usable there, or not one shard of its format with the columns.
        RegradError: the storage refused or failed.
    """
    parts = [_find(pattern, output) for given in inputs for pattern in _patterns(given)]
    looked = looked or Looked()
    shards = {source.uri: dataclasses.replace(source, columns=columns) for part in parts for source in part.shards}
    counted = {uri: look for uri, source in shards.items() if (look := looked.recall(source))}
    new = [source for uri, source in shards.items() if uri not in counted]
    looks = _look_into(new)
    looked.remember(looks)
    counted |= {source.uri: look for source, look in zip(new, looks, strict=True)}
    usable = {source.kind for source, _ in counted.values() if source.rows is not None}
    tables = _tables(parts, counted, usable)
    named: dict[str, Source] = {}
    left_out: dict[str, str] = {}
    for part in parts:
        left_out |= part.left_out
        for shard in part.shards:
            source, mistake = counted[shard.uri]
            if source.uri in tables:
                left_out[source.uri] = _TABLE
                continue
            # One bad shard among good ones must not stop a night; columns that no shard has are a mistake in the flags.
            if mistake and source.kind not in usable:
                raise mistake
            named.setdefault(source.uri, source)
        for folder, shards_there in part.folders:
            if all(uri in tables for uri in shards_there):
                named.setdefault(folder.uri, dataclasses.replace(folder, columns=columns))
            else:
                left_out |= dict.fromkeys((storage.join(folder.uri, name) for name in folder.files), _BESIDE)
    left_out = {name: why for name, why in left_out.items() if name not in named}
    faults = [source.no_labels for source in named.values()]
    if faults and faults[0] and all(faults):
        raise faults[0]
    return Listing(list(named.values()), left_out, looked=looked).labelled(columns.classes)


def _is_labelled_by_path(source: Source) -> bool:
    said = partition_value(source.uri, source.columns.label or LABEL)
    return said is not None and formats()[source.kind].labelled_by_path


def _tables(parts: Sequence[_Part], counted: Mapping[str, Look], usable: Collection[str]) -> set[str]:
    """The Parquet files without images that tell of images which lie elsewhere, and are no shards that lack theirs.

    They were not named one by one, and there is no Parquet file with images, or they have a shard's name beside it.
    """
    chosen = {source.uri for part in parts for source in part.shards if source.uri not in part.listed}
    stems = Counter(_stem(uri) for uri in counted)
    tables = {
        uri
        for uri, (source, mistake) in counted.items()
        if isinstance(mistake, NoImages) and uri not in chosen and (source.kind not in usable or stems[_stem(uri)] > 1)
    }
    alone = tables == counted.keys() and not any(part.folders for part in parts)
    return set() if alone else tables  # else they are what is wrong


def _stem(uri: str) -> str:
    return f"{uri.rpartition('/')[0]}/{stem(uri)}"


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


def _find(pattern: str, output: str | None) -> _Part:
    shown = storage.mask(pattern)
    if not pattern.strip():
        raise UsageError("an INPUT without a name: name a shard, a folder or a pattern")
    storage.refuse_credentials(pattern)
    part = _Part()
    fs, path = storage.filesystem(pattern)
    try:
        fs.invalidate_cache()  # a shard may have changed since this process listed it last
        infos, by_pattern = _infos(fs, path)
        if not infos:
            raise FileNotFoundError
        strays: list[str] = []
        for info in infos:
            if info["type"] == "directory":
                _add_folder(part, fs, info["name"], output, chosen=not by_pattern)
            elif by_pattern and (why := leftovers.why_left(info["name"].rpartition("/")[2])):
                part.left_out[full_name(fs, info["name"])] = why
            elif (kind := kind_of(info["name"])) is None:
                strays.append(full_name(fs, info["name"]))
            else:
                part.shards.append(_shard(fs, kind, info))
                part.listed |= {part.shards[-1].uri} if by_pattern else set()
    except FileNotFoundError as error:
        what = "no such file or folder, and no object under this name"
        raise UsageError(f"{shown}: {what}{storage.remedy(pattern, error)}") from error
    except RegradError:
        raise
    except Exception as error:
        raise storage.failure(pattern, "list", error) from error
    if part.shards or part.folders:
        part.left_out |= {name: _why_stray(name) for name in strays}
    elif strays:
        raise UsageError(f"{storage.mask(strays[0])}: not a {_suffixes()} file; {leftovers.what_to_do(strays[0])}")
    else:
        told = leftovers.instead(leftovers.by_reason(part.left_out.values()))
        raise UsageError(f"{shown}: an empty input: no {_suffixes(', no ')} and no image under it{told}")
    return part


def _why_stray(name: str) -> str:
    base = name.rpartition("/")[2]
    return _BESIDE if is_image(base) else leftovers.why_no_data(base)


def _infos(fs: Any, path: str) -> tuple[list[dict[str, Any]], bool]:
    """What there is at ``path``, and whether that is a pattern."""
    try:
        return [storage.request(fs, "info", path)], False
    except FileNotFoundError:
        if not re.search(r"[*?\[]", path):
            raise
    infos = storage.request(fs, "glob", path, detail=True)
    return [infos[name] for name in sorted(infos)], True


def _shard(fs: Any, kind: str, info: dict[str, Any]) -> Source:
    return Source(_named(full_name(fs, info["name"])), kind, storage.identity_in(fs, info), int(info.get("size") or 0))


def _named(name: str) -> str:
    if as_text(name) != name:
        raise UsageError(f"{as_text(name)}: a name that is not UTF-8, which the score table cannot hold; rename it")
    return name


def _add_folder(part: _Part, fs: Any, path: str, output: str | None, chosen: bool) -> None:
    """Add what is under a folder to ``part`` of the inputs."""
    files = files_under(fs, path, absolute(output) if output else None, chosen)
    shards = [(kind, info) for name, info in files.data.items() if (kind := kind_of(name)) and not name.endswith("/")]
    own = [_shard(fs, kind, info) for kind, info in shards]
    source = folder_source(fs, path, files.data)
    left_out = files.left_out | other_pictures(files.data)
    left_out |= {name: leftovers.why_no_data(name) for name in files.data if not kind_of(name) and not is_image(name)}
    part.left_out |= {full_name(fs, name): why for name, why in left_out.items()}
    part.shards += own
    part.listed |= {shard.uri for shard in own}
    if source.files:
        _named(source.uri)
        part.folders.append((source, [shard.uri for shard in own]))


def _suffixes(between: str = " or ") -> str:
    """One suffix of every format that has any, in words."""
    return between.join(form.suffixes[0] for form in formats().values() if form.suffixes)


def _look_into(new: Sequence[Source]) -> list[Look]:
    """What a look into each tells; where that takes long, it is said how far it is.

    Raises:
        RegradError: the storage refused or failed, for the first of which it did; those not begun are left.
    """
    with ThreadPoolExecutor(_THREADS, "regrad-footers") as pool:
        looks = [pool.submit(_with_rows, source) for source in new]
        try:
            while (state := wait(looks, _SILENT, FIRST_EXCEPTION)).not_done:
                for look in state.done:
                    look.result()
                at = next((each for each, look in zip(new, looks, strict=True) if not look.done()), new[-1])
                say(f"looking into new shards: {len(state.done)} of {len(new)} done, now {storage.mask(at.uri)}")
            return [look.result() for look in looks]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _with_rows(source: Source) -> Look:
    try:
        reader = source.open()
        rows = reader.length()
        told = {name: getattr(reader, name) for name in ("label_names", "no_labels", "marks", "whole")}
        return dataclasses.replace(source, rows=rows, **told), None
    except UsageError as error:
        return source, error
