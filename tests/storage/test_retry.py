"""Trying again: how often, how long, and what an outage means for what comes after it."""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from regrad.storage import faults, retry


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and a store that was last heard of alive."""
    monkeypatch.setattr(retry, "_FIRST", 0.01)
    monkeypatch.setattr(retry, "_LONGEST", 0.02)
    retry.call(lambda: None)
    retry.take_counts()
    yield
    retry.call(lambda: None)


def failing(times: int, error: type[Exception] = ConnectionResetError) -> Callable[[], int]:
    """Fails so often, then gives how often it was called."""
    calls = []

    def act() -> int:
        calls.append(None)
        if len(calls) <= times:
            raise error()
        return len(calls)

    return act


def test_what_may_pass_is_tried_again_and_counted() -> None:
    assert retry.call(failing(3)) == 4
    assert retry.call(failing(1, TimeoutError)) == 2
    assert retry.take_counts() == {"connection reset": 3, "timeout": 1}
    assert retry.take_counts() == {}


def test_what_will_not_pass_is_raised_at_once() -> None:
    with pytest.raises(KeyError):
        retry.call(failing(1, KeyError))
    assert retry.take_counts() == {}
    assert not retry.in_outage()


def test_coroutines_are_tried_again_too() -> None:
    act = failing(2)

    async def ask() -> int:
        return act()

    assert asyncio.run(retry.call_async(ask)) == 3
    assert retry.take_counts() == {"connection reset": 2}


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.monotonic()
    with retry.patience(0.2), pytest.raises(faults.Outage, match=r"tried \d+ times in 0 s\); run the same command"):
        retry.call(failing(10**6))
    assert time.monotonic() - started < 2
    assert retry.in_outage()


class Throttled(ConnectionResetError):
    """With an answer that asks to wait."""

    seconds = "0.3"

    @property
    def response(self) -> Any:
        return types.SimpleNamespace(headers={"retry-after": self.seconds})


class LongThrottled(Throttled):
    seconds = "20"


def test_what_the_store_asks_to_wait_is_waited_beside_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(retry.PATIENCE_VARIABLE, "0.2")
    started = time.monotonic()
    assert retry.call(failing(2, Throttled)) == 3
    assert time.monotonic() - started >= 0.6
    monkeypatch.setattr(retry, "_MOST_ASKED", 0.5)
    with pytest.raises(faults.Outage):
        retry.call(failing(10**6, Throttled))


def test_whoever_has_no_time_does_not_wait_for_what_the_store_asks() -> None:
    started = time.monotonic()
    with retry.patience(5):
        assert retry.call(failing(1, LongThrottled)) == 2
    assert time.monotonic() - started < 5


def test_after_one_gave_up_the_next_is_tried_once_until_one_succeeds() -> None:
    with retry.patience(0.05), pytest.raises(faults.Outage):
        retry.call(failing(10**6))
    with pytest.raises(faults.Outage, match="tried once"):
        retry.call(failing(1))  # with all the patience there is
    assert retry.call(failing(0)) == 1
    assert not retry.in_outage()
    assert retry.call(failing(1)) == 2


@pytest.mark.parametrize(("value", "seconds"), [("0.5", 0.5), ("soon", retry.DEFAULT_PATIENCE), (None, 30.0)])
def test_patience_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch, value: Any, seconds: float) -> None:
    monkeypatch.delenv(retry.PATIENCE_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(retry.PATIENCE_VARIABLE, value)
    assert retry._seconds() == seconds
    with retry.patience(7):
        assert retry._seconds() == 7
    assert retry._seconds() == seconds


def test_the_summary_has_the_most_frequent_first() -> None:
    counts = {"timeout": 1, "503 SlowDown": 2, "429": 2}
    assert retry.summary(counts) == "storage: 5 retries (429 2, 503 SlowDown 2, timeout 1)"
