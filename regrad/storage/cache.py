"""Files of a store kept on this machine: fetched once, whoever of its processes wants them.

``$REGRAD_CACHE``, or ``$XDG_CACHE_HOME/regrad``, or ``~/.cache/regrad``, holds one file for each content that was
fetched, named by its URI and identity (ETag, or size and time of change). A file appears whole or not at all, and
what nobody has asked for in thirty days goes. Of a store that tells no more than sizes, nothing is kept. The folder
may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import filelock

from regrad import storage

VARIABLE = "REGRAD_CACHE"
_KEPT_SECONDS = 30 * 24 * 3600.0
_PARTIAL = ".partial"  # being written, or left by a process that was killed


def read_cached(uri: str) -> bytes:
    """The whole content that ``uri`` has now, downloaded where no process of this machine has done so before.

    The store is asked for the identity every time, at the cost of one small request: what was replaced there is fetched
    anew. Where nothing can be kept (a read-only or full disk) it is downloaded all the same.

    Raises:
        FileNotFoundError: there is no such file.
        RegradError: the storage refused or failed.
    """
    folder = _folder()
    if folder is None or storage.is_local(storage.filesystem(uri)[0]):
        return storage.read_bytes(uri)
    with once(uri):
        identity = storage.identity(uri)
        if not storage.tells_change(identity):
            return storage.read_bytes(uri)
        kept = folder / _name(uri, identity)
        with contextlib.suppress(OSError):
            content = kept.read_bytes()
            os.utime(kept)
            return content
        content, identity = storage.read_identified(uri)
        with contextlib.suppress(OSError):
            _forget(folder)
            _keep(folder / _name(uri, identity), content)
        return content


@contextlib.contextmanager
def once(name: str) -> Iterator[None]:
    """Only one process of this machine at a time is in here for ``name``; one that dies lets the next in."""
    folder = _folder()
    if folder is None:
        yield
        return
    with filelock.FileLock(folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock"):
        yield


def _folder() -> Path | None:
    """Where files are kept, made if need be; None where nothing can be kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(os.environ.get(VARIABLE) or os.path.join(base, "regrad"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    # What lies there becomes somebody's model: nobody else may have written it.
    return folder if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK) else None


def _name(uri: str, identity: str) -> str:
    return f"{hashlib.sha256(f'{uri}|{identity}'.encode()).hexdigest()}.whole"


def _keep(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _forget(folder: Path) -> None:
    """Remove what nobody asked for in a long time, and what killed processes left behind an hour ago or more."""
    now = time.time()
    for pattern, seconds in (("*.whole", _KEPT_SECONDS), (f"*{_PARTIAL}", 3600.0)):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > seconds:
                    path.unlink()
