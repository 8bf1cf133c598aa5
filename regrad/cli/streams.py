"""Standard output and error as a command needs them: open, for every character, and not worth a traceback."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import TextIO

from regrad import storage
from regrad.errors import RegradError

UNREAD = 128 + 13  # as a shell tells of SIGPIPE


@contextlib.contextmanager
def that_take_all() -> Iterator[None]:
    """In this context both can be written to, whatever the locale's encoding lacks; a closed one goes nowhere."""
    while (unused := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(unused, True)  # else the next file, here or in a child, is opened as the closed stream
    os.close(unused)
    before = sys.stdout, sys.stderr
    errors = {stream: stream.errors for stream in before if isinstance(stream, io.TextIOWrapper)}
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
        for stream in errors:
            stream.reconfigure(errors="backslashreplace")
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            for stream, usual in errors.items():
                with contextlib.suppress(OSError):  # it writes first what it holds, which a full disk refuses
                    stream.reconfigure(errors=usual)


def flush() -> None:
    """Write what standard output still holds; at the end of the process an error would be told by nobody.

    Raises:
        BrokenPipeError: its reader is gone.
        RegradError: it cannot be written.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _close(sys.stdout)
        raise RegradError(f"standard output cannot be written: {storage.reason(error)}; what was done stays") from error


def nobody_reads() -> bool:
    """Whether a stream's reader is gone, as that of ``regrad ... | head`` is; nothing more is written to it then."""
    gone = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream)]
    for stream in gone:
        _close(stream)
    return bool(gone)


def _is_unread(stream: TextIO) -> bool:
    with contextlib.suppress(OSError, ValueError):  # one that is no file
        asked = select.poll()  # type: ignore[attr-defined]  # mypy takes jobs/select.py for it
        asked.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in asked.poll(0))  # type: ignore[attr-defined]
    return False


def _close(stream: TextIO) -> None:
    """Let what ``stream`` holds, and what comes, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
