"""Requests side by side: in order, none left behind where one fails, and none that waits for itself."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from regrad.storage import at_once


def test_results_come_in_order_and_side_by_side() -> None:
    met = threading.Barrier(3, timeout=30)

    def call(item: int) -> int:
        if item < 3:
            met.wait()  # which one after the other would wait for ever
        time.sleep(0.02 * (item % 3))
        return item * item

    assert list(at_once.answers(call, iter(range(100)))) == [item * item for item in range(100)]


def test_a_failure_leaves_nothing_running_and_the_rest_undone() -> None:
    begun, ended = list[int](), list[int]()

    def call(item: int) -> None:
        begun.append(item)
        if item == 1:
            raise ValueError("one")
        time.sleep(0.1)
        ended.append(item)

    with pytest.raises(ValueError, match="one"):
        at_once.perform(call, range(10 * at_once.MOST))
    assert sorted(begun) == sorted([1, *ended])
    assert len(begun) < 5 * at_once.MOST


def test_whoever_takes_no_more_results_leaves_nothing_running() -> None:
    ended = list[int]()

    def call(item: int) -> int:
        time.sleep(0.02)
        ended.append(item)
        return item

    results = at_once.answers(call, range(100))
    assert isinstance(results, Iterator)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    count = len(ended)
    time.sleep(0.1)
    assert count == len(ended) < 100


def test_an_interrupt_leaves_nothing_running() -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def call(item: int) -> None:
        time.sleep(0.05 if item else 0.6)
        ended.append(item)

    ended = list[int]()
    before = signal.signal(signal.SIGUSR1, interrupted)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            at_once.perform(call, range(2))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sorted(ended) == [0, 1]


def test_what_was_taken_is_not_held() -> None:
    class Rows:
        pass

    results = at_once.answers(lambda _: Rows(), range(8))
    taken = weakref.ref(next(results))
    next(results)
    gc.collect()
    assert taken() is None


def test_one_item_needs_no_thread() -> None:
    assert list(at_once.answers(lambda _: threading.current_thread(), [0])) == [threading.current_thread()]
    assert list(at_once.answers(str, [])) == []


def test_threads_are_started_once() -> None:
    met = threading.Barrier(4, timeout=30)

    def call(_: int) -> threading.Thread:
        met.wait()
        return threading.current_thread()

    threads = {thread for _ in range(20) for thread in at_once.answers(call, range(4))}
    assert len(threads) <= at_once.MOST


def test_what_is_asked_for_inside_of_a_call_does_not_wait_for_the_others() -> None:
    def inner(item: int) -> int:
        return sum(at_once.answers(int, [item, 1]))

    assert list(at_once.answers(inner, range(2 * at_once.MOST))) == [item + 1 for item in range(2 * at_once.MOST)]


def test_a_forked_process_has_threads_of_its_own() -> None:
    at_once.perform(int, range(4))
    child = multiprocessing.get_context("fork").Process(target=at_once.perform, args=(int, range(4)))
    child.start()
    child.join(30)
    assert child.exitcode == 0
