"""What tells one content of a file from another, of what its store says of it: a checksum or version, else a time.

The size alone tells nothing. Each store has names of its own for what it offers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

# Of S3 and most others; of Google, Azure, HTTP, Hugging Face, GitHub, Drive, Box and Dropbox; of archives.
_CONTENT = (
    *("ETag", "etag", "md5Hash", "content_md5", "generation"),
    *("Content-MD5", "Digest", "crc32c", "checksum", "md5", "md5Checksum", "sha256", "sha1", "sha", "xet_hash"),
    *("blob_id", "content_hash", "VersionId", "version_id", "rev", "CRC", "crc"),
)
_TIMES = (
    *("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "modified", "modify", "modificationTime"),
    *("modifiedTime", "timeModified", "last_write_time", "server_modified", "date_time", "created"),
)
_WITHIN = ("content_settings", "lfs")  # where Azure and Hugging Face have some of these


def identify(info: Mapping[str, Any]) -> str:
    """The identity of the file that a listing or a request said this ``info`` of; see :func:`tells_change`.

    >>> identify({"size": 3, "ETag": '"abc"', "LastModified": 1}), identify({"size": 3, "Last-Modified": "Mon"})
    ('3:abc', '3:Mon')
    >>> identify({"size": 3}), tells_change(identify({"size": 3}))
    ('3:', False)
    """
    if content := _first(info, _CONTENT):
        # Listings and single requests of one store differ in whether they quote it.
        return f"{info.get('size')}:{str(content).strip(chr(34))}"
    if "islink" in info:
        return _identify_local(info)
    return f"{info.get('size')}:{_first(info, _TIMES) or ''}"


def tells_change(identity: str) -> bool:
    """Whether an identity holds more than the size: else another content of the same size has the same."""
    return not identity.endswith(":")


def _first(info: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first of these that is there and not empty; a time of zero is what is said where there is none."""
    parts = [info, *(part for name in _WITHIN if isinstance(part := info.get(name), Mapping))]
    return next((part[name] for name in names for part in parts if part.get(name)), None)


def _identify_local(info: Mapping[str, Any]) -> str:
    size, changed, created = info["size"], info["mtime"], info.get("created")
    if info["islink"]:  # to a file, whose content it is
        with contextlib.suppress(OSError):
            status = os.stat(info["name"])
            size, changed, created = status.st_size, status.st_mtime, status.st_ctime
    # Permissions given change neither size nor time: the row that says they are missing must still be out of date.
    readable = os.access(info["name"], os.R_OK)
    return f"{size}:{changed or created or ''}{'' if readable else ':unreadable'}"
