"""The working directory that a job on a cluster is sent, packed."""

from __future__ import annotations

import fnmatch
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrad.errors import UsageError

# What no job needs: matched against each name on the way to a file, or, with a slash in front, at the top alone.
EXCLUDES = (".*", "__pycache__", "*.egg-info", "/build", "/data", "/demo", "/dist")

DEFAULT_MOST = 50_000_000  # bytes, packed: Ray keeps them in the head node's memory


@dataclass(frozen=True)
class Package:
    """A working directory, packed; ``largest`` names what weighs most at its top level."""

    path: Path
    files: int
    size: int
    packed: int
    largest: str

    def __str__(self) -> str:
        return f"{self.files} files, {megabytes(self.size)}, packed {megabytes(self.packed)}"


def megabytes(size: int) -> str:
    """``size`` bytes for people.

    >>> megabytes(1_234_567)
    '1.23 MB'
    """
    return f"{size / 1e6:.3g} MB"


def pack(folder: str, excludes: Sequence[str], most: int, into: str) -> Package:
    """The files of ``folder`` but ``excludes``, as a zip file in the folder ``into``.

    The same files make the same bytes, which Ray then does not send twice.

    Raises:
        UsageError: there is no such folder, nothing in it, or more than ``most`` bytes, packed.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"--working-dir {folder}: no such folder")
    path, sizes = Path(into) / "working-dir.zip", dict[str, int]()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in _files(root, excludes):
            name = file.relative_to(root)
            content = file.read_bytes()
            entry = zipfile.ZipInfo(name.as_posix())  # of 1980: when a file was changed does not matter
            entry.external_attr = (0o755 if os.access(file, os.X_OK) else 0o644) << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
            sizes[str(name)] = len(content)
            if archive.fp is not None and archive.fp.tell() > most:
                break  # a folder of terabytes is not read to its end
    package = Package(path, len(sizes), sum(sizes.values()), path.stat().st_size, _largest(sizes))
    if not sizes:
        raise UsageError(f"--working-dir {folder}: nothing to send but what is excluded: {', '.join(excludes)}")
    if package.packed > most:
        raise UsageError(
            f"--working-dir {folder}: more than {megabytes(most)} to send (largest: {package.largest}); leave data out "
            "with --exclude PATTERN and read it from object storage, or raise --max-size"
        )
    return package


def _files(root: Path, excludes: Sequence[str]) -> Iterator[Path]:
    for place, folders, names in os.walk(root):
        top = Path(place) == root

        def wanted(name: str, top: bool = top) -> bool:
            patterns = [pattern for pattern in excludes if top or not pattern.startswith("/")]
            return not any(fnmatch.fnmatchcase(name, pattern.strip("/")) for pattern in patterns)

        folders[:] = sorted(filter(wanted, folders))
        yield from (Path(place, name) for name in sorted(filter(wanted, names)) if Path(place, name).is_file())


def _largest(sizes: Mapping[str, int]) -> str:
    tops: dict[str, int] = {}
    for name, size in sizes.items():
        top = name.split(os.sep)[0]
        tops[top] = tops.get(top, 0) + size
    ordered = sorted(tops.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {megabytes(size)}" for name, size in ordered[:3])


def working_folder() -> tempfile.TemporaryDirectory[str]:
    """A place for :func:`pack`, which goes with its context."""
    return tempfile.TemporaryDirectory(prefix="regrad-")
