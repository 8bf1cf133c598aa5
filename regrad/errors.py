"""The errors regrad raises on purpose. Each message is one line: what is wrong, where, and what to do."""

from __future__ import annotations


class RegradError(Exception):
    """The work failed (unreadable storage, lost rows): a job ends with code 1."""

    exit_code = 1


class UsageError(RegradError, ValueError):
    """A wrong argument, configuration, model or weights file; nothing was written: a job ends with code 2."""

    exit_code = 2
