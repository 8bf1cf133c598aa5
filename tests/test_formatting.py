"""Numbers and names for people, where they are easily wrong: at the edges."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from regrad.formatting import aligned, class_name, count, duration, file_name, now, p_value, percent


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (1e-9, "< 0.1 %"),
        (0.00049, "< 0.1 %"),
        (0.0005, "0.1 %"),
        (0.5, "50.0 %"),
        (0.99949, "99.9 %"),
        (0.9995, "> 99.9 %"),
        (1 - 1e-9, "> 99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (59 * 60 + 29, "59 min"),
        (59 * 60 + 31, "1 h 00 min"),
        (3 * 3600 + 5 * 60, "3 h 05 min"),
        (100 * 3600, "100 h 00 min"),
    ],
)
def test_a_time_has_its_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("index", "names", "text"),
    [(0, ["cat"], "cat"), (1, ["cat"], "1"), (-1, ["cat"], "–"), (None, ["cat"], "–"), (3, None, "3"), (3, [], "3")],
)
def test_a_class_without_a_name_is_its_number(index: int | None, names: Sequence[str] | None, text: str) -> None:
    assert class_name(index, names) == text


def test_nouns_and_file_names() -> None:
    assert [count(number, "row") for number in (0, 1, 1234)] == ["0 rows", "1 row", "1,234 rows"]
    assert [file_name(uri) for uri in ("a", "/b/c/", "s3://d/e.tar")] == ["a", "c", "e.tar"]


def test_columns_begin_below_each_other() -> None:
    rows = [["score", "AUROC", ""], ["e", "9.5", "x"], ["", "100", "y"]]
    lines = aligned(rows)
    assert lines == ["score  AUROC", "e      9.5    x", "       100    y"]
    with pytest.raises(ValueError):
        aligned([["a", "b"], ["c"]])
    assert {line.index(text) for line, text in zip(lines, ("AUROC", "9.5", "100"), strict=True)} == {7}


def test_the_time_is_utc_in_whole_seconds() -> None:
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", now())


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "p < 0.001"), (0.00099, "p < 0.001"), (0.001, "p = 0.001"), (1.0, "p = 1")]
)
def test_a_p_value(p: float, text: str) -> None:
    assert p_value(p) == text
