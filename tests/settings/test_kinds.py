"""What a setting may be, from a flag's text or a YAML file's value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regrad.settings import kinds
from regrad.settings.kinds import exceeds


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        (kinds.names, ["a", " b "], ["a", "b"]),
        (kinds.numbers, "0.1,0.2", [0.1, 0.2]),
        (kinds.numbers, [0.5], 0.5),
        (kinds.size, [32, 48], [32, 48]),
        (kinds.size, "32X48", [32, 48]),
        (kinds.count, "7", 7),
        (kinds.whole, "-1", -1),
        (kinds.memory, "1.5 GB", 1_500_000_000),
        (kinds.memory, "64k", 64_000),
        (kinds.share, 0, "0"),
        (kinds.switch, True, True),
    ],
)
def test_texts_and_values_are_understood_alike(kind: Callable[[Any], Any], given: Any, meant: Any) -> None:
    assert kind(given) == meant


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (kinds.numbers, "one"),
        (kinds.size, "1x2x3"),
        (kinds.size, "0"),
        (kinds.count, "0"),
        (kinds.count, 1.0),
        (kinds.count, True),
        (kinds.whole, "1.5"),
        (kinds.whole, 2.0),
        (kinds.memory, "much"),
        (kinds.memory, "0GiB"),
        (kinds.share, "-1"),
        (kinds.share, "101%"),
        (kinds.switch, "yes"),
    ],
)
def test_anything_else_is_refused(kind: Callable[[Any], Any], given: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        kind(given)


def test_the_limit_of_quarantined_rows_is_inclusive() -> None:
    assert not exceeds(3, 100, "3%")
    assert exceeds(4, 100, "3%")
    assert not exceeds(0, 0, "0")
