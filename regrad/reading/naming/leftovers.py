"""What other tools, and this one, leave in folders and tars beside the data: it is no input, and it is counted."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from regrad.reading.naming.pictures import is_image

BY_TOOLS = "left by a desktop or an archiver"
HIDDEN = "hidden"
OUTPUT = "an output of regrad"
NO_EXTENSION = "no extension"
OTHER = "other"
_TYPE = "type not read: "
_REASONS = 50  # of what was skipped in one place
_TEMPORARY = "_tmp-"  # begins the names of files that are being written
_TOOLS_FILES = frozenset((".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", ".localized"))
_TOOLS_FOLDERS = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information", ".appledouble")
)
# What can be done about a type: of several in one place, about the first of these.
_TO_DO = {
    **dict.fromkeys((".zip", ".7z", ".rar", ".tar"), "unpack it and give the folder"),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".lz4", ".z", ".br"), "decompress it, and give what was in it"),
    **dict.fromkeys((".arrow", ".feather", ".ipc", ".orc", ".avro"), "write the same rows as Parquet"),
    **dict.fromkeys(
        (".tfrecord", ".tfrecords", ".h5", ".hdf5", ".npy", ".npz", ".mat", ".pkl", ".lmdb", ".mdb", ".rec", ".mds"),
        "write its images into a tar or Parquet, or add a format (docs/extending.md)",
    ),
    **dict.fromkeys((".csv", ".tsv", ".json", ".jsonl", ".txt", ".xml"), "give the folder of its images"),
}
_SINGLE = "for single images give the folder that holds them"
_LOGS = {
    "Delta": re.compile(r"(^|/)_delta_log/"),
    "Iceberg": re.compile(r"(^|/)metadata/[^/]*\.metadata\.json$"),
    "Hudi": re.compile(r"(^|/)\.hoodie/"),
}
# What tells that a folder is an output: a file in it, and what beneath it records its units.
_OUTPUT_FILES, _LEDGER = ("run.json", "filter.json"), "ledger"
_RECORDS = re.compile(r".*\.json|snapshot-\d{8}-\d{8}-\w+\.parquet")


def why_tools(path: str) -> str | None:
    """Why what has this name, in a folder or a tar, is no data, if a desktop or an archiver has left it.

    >>> why_tools("a/__MACOSX/._1.png"), why_tools("a/1.png")
    ('left by a desktop or an archiver', None)
    """
    *folders, base = path.lower().split("/")
    tools = base.startswith("._") or base in _TOOLS_FILES or not _TOOLS_FOLDERS.isdisjoint(folders)
    return BY_TOOLS if tools else None


def in_hidden_folder(path: str) -> bool:
    """Whether a folder on the way to a file, or to a member of a tar, begins with a dot.

    >>> in_hidden_folder("a/.ipynb_checkpoints/1.png"), in_hidden_folder("./a/1.png")
    (True, False)
    """
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/")[:-1])


def why_left(path: str) -> str | None:
    """Why a file at ``path`` below an input is no data, whatever is in it; None where it may be.

    As everywhere in data, a name that begins with a dot or an underscore is hidden (``_SUCCESS``, ``_delta_log/``). But
    cameras begin the names of pictures with an underscore.

    >>> why_left("day/_MG_1.jpg"), why_left("_SUCCESS"), why_left(".ipynb_checkpoints/a.png")
    (None, 'hidden', 'hidden')
    """
    *folders, base = path.split("/")
    if why := why_tools(path):
        return why
    hidden = base.startswith((".", _TEMPORARY)) or (base.startswith("_") and not is_image(base))
    return HIDDEN if hidden or any(name.startswith((".", "_")) for name in folders) else None


def why_no_data(path: str) -> str:
    """Why a file is neither a shard nor a picture."""
    base = path.rpartition("/")[2]
    _, dot, ending = base.rpartition(".")
    return f"{_TYPE}.{ending.lower()}" if dot and ending else NO_EXTENSION


def what_to_do(path: str) -> str:
    """What whoever gave a file as an input, though it is neither a shard nor a folder, can do.

    >>> what_to_do("a/pictures.ZIP"), what_to_do("cat.jpg")
    ('unpack it and give the folder', 'for single images give the folder that holds them')
    """
    return _TO_DO.get(posixpath.splitext(path.lower())[1], _SINGLE)


def instead(skipped: Counter[str]) -> str:
    """What there is in place of images, and what can be done about it, to follow a message; nothing where it is empty.

    >>> instead(Counter({"type not read: .tar": 1000}))
    '; left out 1,000: 1,000 type not read: .tar; unpack it and give the folder'
    """
    if not skipped:
        return ""
    to_do = next((f"; {told}" for ending, told in _TO_DO.items() if f"{_TYPE}{ending}" in skipped), "")
    return f"; left out {in_words(skipped)}{to_do}"


def lake(paths: Iterable[str]) -> str | None:
    """The kind of table whose log lies among ``paths``: not every file beside that is a part of it any more.

    >>> lake(["t/_delta_log/0.json"]), lake(["t/metadata/v3.metadata.json"]), lake(["t/metadata/cats.json"])
    ('Delta', 'Iceberg', None)
    """
    there = list(paths)
    return next((kind for kind, log in _LOGS.items() if any(map(log.search, there))), None)


def outputs(paths: Iterable[str]) -> list[str]:
    """The folders among ``paths`` that are outputs of a run or a filter, each with a slash at its end.

    >>> outputs(["a/old/run.json", "a/old/ledger/1.json", "a/run.json"])
    ['a/old/']
    """
    there = list(paths)
    ledgers = {folder for path in there if (folder := _above_ledger(path)) is not None}
    named = (path[: -len(name)] for path in there for name in _OUTPUT_FILES if path.endswith(f"/{name}"))
    return sorted(set(named) & ledgers)


def _above_ledger(path: str) -> str | None:
    folder, _, base = path.rpartition("/")
    above, slash, last = folder.rpartition("/")
    return f"{above}{slash}" if last == _LEDGER and _RECORDS.fullmatch(base) else None


def add_reason(skipped: Counter[str], reason: str) -> None:
    """Count something under its ``reason``; of very many reasons some have no name."""
    skipped[reason if reason in skipped or len(skipped) < _REASONS else OTHER] += 1


def by_reason(reasons: Iterable[str]) -> Counter[str]:
    """How often each of the ``reasons`` comes, as :func:`add_reason` does it."""
    skipped: Counter[str] = Counter()
    for reason in reasons:
        add_reason(skipped, reason)
    return skipped


def in_words(skipped: Counter[str]) -> str:
    """All in one line, the most frequent first.

    >>> in_words(Counter({"hidden": 1, "type not read: .json": 20}))
    '21: 20 type not read: .json, 1 hidden'
    """
    return f"{skipped.total():,}: {', '.join(_each(skipped))}"


def _each(skipped: Counter[str]) -> Iterator[str]:
    return (f"{number:,} {reason}" for reason, number in sorted(skipped.items(), key=lambda item: (-item[1], item[0])))
