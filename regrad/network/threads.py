"""Pieces of a batch side by side on a CPU, each by a thread of its own that shares no operation with another.

PyTorch's own threads share every operation and meet at its end: where one of them is not running, since a core is
shared with another process or a quota is used up, all wait for it, thousands of times a batch. Threads that each have
their images meet once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from regrad.network.operations import operations_are_seen

T = TypeVar("T")


class SideBySide:
    """Runs functions in ``count`` threads, each of which computes alone, and without gradients unless told.

    A single function goes to such a thread, too: an operation of several threads is rounded otherwise, which a score
    is not to show.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, functions: Sequence[Callable[[], T]]) -> list[T]:
        """What they return, in order.

        Raises:
            Exception: the first that one of them raised, when all have ended.
        """
        if self.count == 1 or operations_are_seen():  # which a mode sees in its own thread alone
            return [function() for function in functions]
        if self._pool is None:
            self._pool = self._started()
        running = [self._pool.submit(_without_gradients, function) for function in functions]
        for each in running:
            each.exception()  # none goes on while the caller thinks of something else
        return [each.result() for each in running]

    def _started(self) -> ThreadPoolExecutor:
        before = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.count, "side-by-side", initializer=_compute_alone)
        met = threading.Barrier(self.count + 1)
        for _ in range(self.count):  # each begins a thread, since none is free
            pool.submit(met.wait)
        met.wait()
        torch.set_num_threads(before)  # again: the last to set it decides for threads that begin later
        return pool


def _compute_alone() -> None:
    torch.get_num_threads()  # else what is set is forgotten at the first operation, for what the process has
    torch.set_num_threads(1)


def _without_gradients(function: Callable[[], T]) -> T:
    with torch.no_grad():  # which is each thread's own
        return function()
