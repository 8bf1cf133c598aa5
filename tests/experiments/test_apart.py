"""Work in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from regrad.experiments.apart import Ended, in_a_process


def work(count: int, then: str) -> Iterator[int]:
    yield from range(count)
    if then == "sleeps":
        time.sleep(60)
    if then == "dies":
        os._exit(7)


def test_pieces_come_and_then_how_it_ended() -> None:
    assert [*in_a_process(work, (2, ""), 30, "fork")] == [0, 1, Ended(stopped=False)]
    assert [*in_a_process(work, (1, "dies"), 30, "fork")] == [0, Ended(stopped=False, code=7)]
    started = time.monotonic()
    assert [*in_a_process(work, (1, "sleeps"), 1, "fork")] == [0, Ended(stopped=True)]
    assert time.monotonic() - started < 20


def test_whoever_stops_listening_leaves_no_process() -> None:
    pieces = in_a_process(os_pid, (), 30, "fork")
    pid = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} goes on")


def os_pid() -> Iterator[int]:
    yield os.getpid()
    time.sleep(60)
