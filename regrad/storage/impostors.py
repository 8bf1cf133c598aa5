"""What a file is in place of what its name says: checkouts and downloads that went wrong leave such."""

from __future__ import annotations

_BEGINNINGS = (
    ((b"version https://git-lfs",), "a Git LFS pointer, not the file itself: fetch that with `git lfs pull`"),
    ((b"<!doctype html", b"<html"), "a web page, as a login or an error answers a download with: fetch the file again"),
    ((b"<?xml", b"<error"), "an XML page, as a store answers a wrong download with: fetch the file again"),
)
BEGIN_BYTES = 512  # of a file, enough to tell


def impostor(content: bytes) -> str | None:
    """What ``content``, a file's first bytes, are instead of any data, and what to do; None where they may be data.

    >>> impostor(b"version https://git-lfs.github.com/spec/v1")
    'a Git LFS pointer, not the file itself: fetch that with `git lfs pull`'
    >>> impostor(b" <!DOCTYPE html><p>403</p>")
    'a web page, as a login or an error answers a download with: fetch the file again'
    >>> impostor(b"PAR1")
    """
    begin = content[:BEGIN_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((what for beginnings, what in _BEGINNINGS if begin.startswith(beginnings)), None)
