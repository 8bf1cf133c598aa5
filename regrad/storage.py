"""Files anywhere fsspec reaches (local, ``s3://``, ``gs://``): read whole, written whole or not at all."""

from __future__ import annotations

import os
import re
import uuid
from typing import Any

import fsspec

from regrad.errors import RegradError, UsageError

TEMPORARY_PREFIX = "_tmp-"


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of ``uri`` and the path inside it; local paths become absolute.

    Raises:
        UsageError: no installed package serves the scheme.
    """
    try:
        fs, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{mask(uri)}: cannot open this kind of URI: {error}") from error
    return fs, path


def is_local(fs: Any) -> bool:
    """Whether ``fs`` is a folder of this machine."""
    return "file" in (fs.protocol if isinstance(fs.protocol, (tuple, list)) else (fs.protocol,))


def join(uri: str, *parts: str) -> str:
    """``uri`` and ``parts`` with single slashes between.

    >>> join("s3://bucket/out/", "scores", "part-1.parquet")
    's3://bucket/out/scores/part-1.parquet'
    """
    return "/".join([uri.rstrip("/"), *parts])


def mask(text: str) -> str:
    """``text`` with user names, passwords and query strings of any URI in it removed.

    >>> mask("cannot read s3://key:secret@bucket/a?X-Amz-Signature=1")
    'cannot read s3://***@bucket/a?***'
    """
    text = re.sub(r"(\b\w+://)[^/@\s]+@", r"\1***@", text)
    return re.sub(r"(\b\w+://[^\s?]+\?)\S+", r"\1***", text)


def read_bytes(uri: str) -> bytes:
    """The whole content of ``uri``.

    Raises:
        FileNotFoundError: there is no such file.
        RegradError: the storage refused or failed.
    """
    fs, path = filesystem(uri)
    try:
        return fs.cat_file(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{mask(uri)}: no such file") from error
    except Exception as error:  # every fsspec back end raises its own family
        raise RegradError(f"{mask(uri)}: cannot read: {reason(error)}") from error


def write_atomically(uri: str, content: bytes) -> None:
    """Write ``content`` so that a reader sees the old file or the new one, never a part.

    Object stores make an object visible when its upload is complete. A local file is written under a
    temporary name that Parquet tools skip, then renamed.

    Raises:
        RegradError: the storage refused or failed (full disk, read-only, no permission).
    """
    fs, path = filesystem(uri)
    try:
        if not is_local(fs):
            fs.pipe_file(path, content)
            return
        folder, name = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{name}")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise
    except Exception as error:
        raise RegradError(f"{mask(uri)}: cannot write: {reason(error)}") from error


def remove(uri: str) -> None:
    """Delete ``uri``; a file that is not there is no error."""
    fs, path = filesystem(uri)
    try:
        fs.rm_file(path)
    except FileNotFoundError:
        return
    except Exception as error:
        raise RegradError(f"{mask(uri)}: cannot delete: {reason(error)}") from error


def list_files(uri: str, suffix: str = "") -> list[str]:
    """The file names (not paths) directly under ``uri`` that end with ``suffix`` and are not temporary, sorted."""
    fs, path = filesystem(uri)
    try:
        fs.invalidate_cache(path)  # another process may have written since
        entries = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    except Exception as error:
        raise RegradError(f"{mask(uri)}: cannot list: {reason(error)}") from error
    names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
    return sorted(name for name in names if name.endswith(suffix) and not name.startswith(("_", ".")))


def reason(error: BaseException) -> str:
    """One masked line that says what ``error`` is, without a traceback."""
    lines = str(error).strip().splitlines()
    return mask(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__)
