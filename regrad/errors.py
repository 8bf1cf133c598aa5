"""The errors regrad raises on purpose. Each message is one line: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Mapping


class RegradError(Exception):
    """The work failed (unreadable storage, lost rows): a job ends with code 1."""

    exit_code = 1


class UsageError(RegradError, ValueError):
    """A wrong argument, configuration, model or weights file; nothing was written: a job ends with code 2."""

    exit_code = 2


def require(checks: Mapping[str, bool]) -> None:
    """Refuse with the first message whose condition does not hold.

    Raises:
        UsageError: there is one.
    """
    for message, holds in checks.items():
        if not holds:
            raise UsageError(message)
