"""Many requests at the same time: they wait for a store far more than they compute."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

MOST = 32
Item = TypeVar("Item")
Result = TypeVar("Result")

_thread = threading.local()
_pool: ThreadPoolExecutor


def answers(call: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``call`` of every item, in their order, up to :data:`MOST` at a time.

    The threads stay: to read a few small files costs no start of any. A single item is done by the thread that asks for
    it, and what is asked for inside of a ``call`` has threads of its own, or all might wait for each other.

    Raises:
        Exception: what the first ``call`` that failed has raised, once none is running; those not begun are left.
    """
    items = list(items)
    if len(items) < 2:
        yield from map(call, items)
    elif getattr(_thread, "busy", False):
        with ThreadPoolExecutor(MOST, "regrad-inner") as pool:
            yield from _results(pool, call, items)
    else:
        yield from _results(_pool, call, items)


def perform(call: Callable[[Item], object], items: Iterable[Item]) -> None:
    """As :func:`answers`, for what it does."""
    for _ in answers(call, items):
        pass


def _results(pool: ThreadPoolExecutor, call: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    left = deque(pool.submit(_busy, call, item) for item in items)
    try:
        while left:
            answer = left[0].result()
            left.popleft()  # so that what was taken is not held
            yield answer
    finally:
        wait([result for result in left if not result.cancel()])


def _busy(call: Callable[[Item], Result], item: Item) -> Result:
    _thread.busy = True
    return call(item)


def _renew() -> None:
    global _pool
    _pool = ThreadPoolExecutor(MOST, "regrad-at-once")  # which starts no thread before it needs one


_renew()
os.register_at_fork(after_in_child=_renew)  # a child has none of the threads
