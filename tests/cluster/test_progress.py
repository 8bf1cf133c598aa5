import io

import pytest

from regrad.cluster import progress
from regrad.cluster.progress import Progress


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_elsewhere_than_on_a_terminal_there_is_a_line_every_half_minute(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress(1000, stream=stream)
    for step in range(1, 121):
        clock.now += 1
        shown.update(5 * step, 0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "150 of 1000 images, 5 images/s, 3 min left, 0 quarantined"
    assert len(lines) == 4


def test_a_terminal_has_one_live_line(clock: Clock) -> None:
    stream = Terminal()
    shown = Progress(100, exact=False, stream=stream)
    for step in range(1, 11):
        clock.now += 1
        shown.update(step, step)
    shown.clear()
    *_, last, cleared = stream.getvalue().split("\r\x1b[K")
    assert last == "20 of about 100 images, 2 images/s, 40 s left, 10 quarantined"
    assert cleared == ""
    assert "\n" not in stream.getvalue()


def test_the_speed_is_that_of_the_last_half_minute(clock: Clock) -> None:
    shown = Progress(0, stream=io.StringIO())
    for step in range(100):
        clock.now += 1
        shown.update(step if step < 50 else 50 + 10 * (step - 50), 0)
    assert shown.line(540, 0).startswith("540 images, 10 images/s, 0 quarantined")
