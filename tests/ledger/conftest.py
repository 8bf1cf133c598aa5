"""What tests of the ledger share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from regrad import storage
from regrad.storage import at_once


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """What is called before every write and every removal."""
    called: list[Callable[[], None]] = []
    for name in ("write_atomically", "remove"):
        real = getattr(storage, name)

        def stepping(*arguments: Any, real: Callable[..., None] = real) -> None:
            for step in called:
                step()
            real(*arguments)

        monkeypatch.setattr(storage, name, stepping)
    monkeypatch.setattr(at_once, "answers", map)  # one step after the other
    return called
