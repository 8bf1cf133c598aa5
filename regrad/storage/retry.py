"""Trying again where that may help: capped exponential backoff with full jitter, up to a total time.

A request is repeated as long as there is patience for it (``REGRAD_STORAGE_PATIENCE`` seconds); what the store itself
asks to wait, as the hub does of whoever asked too often, does not count. Once one gave up, the others of this process
that fail give up too, until one succeeds: an outage costs a run that time once, not once for each thing it still wanted
to do.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from regrad.storage import faults

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")

PATIENCE_VARIABLE = "REGRAD_STORAGE_PATIENCE"
# Seconds in which tries begin. The last may take a timeout of 10 s, and another the news of it in run.json: with both,
# a run that a store leaves hanging ends in under a minute.
DEFAULT_PATIENCE = 30.0
_FIRST, _LONGEST = 0.2, 8.0  # seconds of the first and of any later wait, at most

_MOST_ASKED = 600.0  # seconds that are waited at the store's own request, beside the patience

_patience: contextvars.ContextVar[float | None] = contextvars.ContextVar("patience", default=None)
_lock = threading.Lock()
_counts: Counter[str] = Counter()
_outage = threading.Event()


def call(function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """``function(*arguments, **keywords)``, tried again while it fails in a way that may pass.

    Raises:
        Outage: it kept failing that way.
    """
    import tenacity  # of which whoever asks no store has no need

    result: T = tenacity.Retrying(**_policy())(function, *arguments, **keywords)
    _outage.clear()
    return result


async def call_async(function: Callable[..., Awaitable[T]], *arguments: Any, **keywords: Any) -> T:
    """As :func:`call`, of a coroutine function."""
    import tenacity

    result: T = await tenacity.AsyncRetrying(**_policy())(function, *arguments, **keywords)
    _outage.clear()
    return result


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """In this context, tries begin for so many seconds only."""
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def in_outage() -> bool:
    """Whether the last that this process heard of a store is that it gave up on it."""
    return _outage.is_set()


def take_counts() -> dict[str, int]:
    """How often was tried again in this process since this was asked last, by the kind of trouble."""
    with _lock:
        counts = dict(_counts)
        _counts.clear()
    return counts


def summary(counts: Mapping[str, int]) -> str:
    """``counts`` on one line.

    >>> summary({"connection reset": 7, "503 SlowDown": 30})
    'storage: 37 retries (503 SlowDown 30, connection reset 7)'
    """
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return f"storage: {sum(counts.values())} retries ({kinds})"


def _policy() -> dict[str, Any]:
    import tenacity

    patience, backoff = _seconds(), tenacity.wait_random_exponential(multiplier=_FIRST, max=_LONGEST)
    left = _MOST_ASKED if _patience.get() is None else 0.0  # whoever has little time has none for this
    asked = 0.0

    def wait(state: tenacity.RetryCallState) -> float:
        nonlocal asked
        error = state.outcome.exception() if state.outcome else None
        seconds = faults.asked_to_wait(error) if error else 0.0
        if asked + seconds > left:
            seconds = 0.0
        asked += seconds
        return seconds + backoff(state)

    def enough(state: tenacity.RetryCallState) -> bool:
        return (state.seconds_since_start or 0.0) + state.upcoming_sleep >= patience + asked

    return {
        "retry": tenacity.retry_if_exception(lambda error: faults.kind(error) is not None),
        "wait": wait,
        "stop": lambda state: _outage.is_set() or enough(state),
        "before_sleep": _count,
        "retry_error_callback": _give_up,
    }


def _seconds() -> float:
    chosen = _patience.get()
    if chosen is not None:
        return chosen
    try:
        return float(os.environ[PATIENCE_VARIABLE])
    except (KeyError, ValueError):
        return DEFAULT_PATIENCE


def _count(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    with _lock:
        _counts[(error and faults.kind(error)) or "unknown"] += 1


def _give_up(state: tenacity.RetryCallState) -> NoReturn:
    _outage.set()
    error = state.outcome.exception() if state.outcome else None
    assert error is not None
    tries = "once" if state.attempt_number == 1 else f"{state.attempt_number} times"
    raise faults.Outage(
        f"{faults.cause(error)} (tried {tries} in {state.seconds_since_start or 0:.0f} s); run the same command again "
        "when the store answers; what is committed stays"
    ) from error
