"""A store that tells the sizes of its files, and nothing else."""

from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class PlainFileSystem(MemoryFileSystem):
    """``plain://``: in memory, without a time."""

    protocol = "plain"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix(f"{cls.protocol}://"))

    def info(self, path: str, **keywords: Any) -> dict[str, Any]:
        return _bare(super().info(path, **keywords))

    def ls(self, path: str, detail: bool = True, **keywords: Any) -> Any:
        entries = super().ls(path, detail=detail, **keywords)
        return [_bare(entry) for entry in entries] if detail else entries

    def find(self, path: str, detail: bool = False, **keywords: Any) -> Any:
        entries = super().find(path, detail=detail, **keywords)
        return {name: _bare(entry) for name, entry in entries.items()} if detail else entries

    def modified(self, path: str) -> Any:
        raise NotImplementedError

    def unstrip_protocol(self, name: str) -> str:
        return f"{self.protocol}://{name}"


class TimedFileSystem(PlainFileSystem):
    """``timed://``: its time has to be asked for."""

    protocol = "timed"

    def modified(self, path: str) -> Any:
        return MemoryFileSystem.modified(self, path)


def _bare(info: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name in ("name", "size", "type")}


fsspec.register_implementation("plain", PlainFileSystem, clobber=True)
fsspec.register_implementation("timed", TimedFileSystem, clobber=True)
