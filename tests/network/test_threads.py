"""Functions side by side: what they return, what they raise, and the threads that PyTorch has meanwhile and after."""

from __future__ import annotations

import threading

import pytest
import torch

from regrad.network.operations import Multiplications
from regrad.network.threads import SideBySide


def test_results_come_in_order_from_threads_that_compute_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        met = threading.Barrier(2, timeout=30)

        def work(number: int) -> tuple[int, int, bool, str]:
            met.wait()  # both are under way at once
            return number, torch.get_num_threads(), torch.is_grad_enabled(), threading.current_thread().name

        together = SideBySide(2)
        for _ in range(2):
            found = together([lambda: work(0), lambda: work(1)])
            assert [(number, threads, gradients) for number, threads, gradients, _ in found] == [
                (0, 1, False),
                (1, 1, False),
            ]
            assert {name.rpartition("_")[0] for *_, name in found} == {"side-by-side"}
        assert torch.get_num_threads() == 2
        later: list[int] = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [2]
    finally:
        torch.set_num_threads(before)


def test_one_function_computes_alone_too_and_one_thread_is_this_one() -> None:
    here = threading.current_thread().name
    assert SideBySide(3)([torch.get_num_threads]) == [1]
    assert SideBySide(3)([lambda: threading.current_thread().name]) != [here]
    assert SideBySide(1)([lambda: threading.current_thread().name] * 2) == [here] * 2


def test_what_is_watched_stays_where_it_is_seen() -> None:
    with Multiplications() as seen:
        SideBySide(2)([lambda: torch.ones(3, 4) @ torch.ones(4, 5)] * 2)
    assert seen.total == 2 * 3 * 4 * 5


def test_what_one_raises_comes_when_all_have_ended() -> None:
    ended: list[int] = []
    begun = threading.Event()

    def failing() -> None:
        assert begun.wait(30)
        raise ValueError("no memory")

    def other() -> None:
        begun.set()
        torch.ones(1000).sum()
        ended.append(1)

    with pytest.raises(ValueError, match="no memory"):
        SideBySide(2)([failing, other])
    assert ended == [1]
