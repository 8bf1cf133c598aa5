"""What a value may be, from a flag's text, a YAML file's value or a caller."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import pytest

from regrad.settings import kinds
from regrad.settings.kinds import ValueKind, WrongValue, exceeds, finite, number, one_of, whole_number


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        (kinds.NAMES, ["a", " b "], ["a", "b"]),
        (kinds.NAMES, "regrad, entropy,", ["regrad", "entropy"]),
        (kinds.NUMBERS, "0.1,0.2", [0.1, 0.2]),
        (kinds.NUMBERS, [0.5], 0.5),
        (kinds.SIZE, [32, 48], [32, 48]),
        (kinds.SIZE, "32X48", [32, 48]),
        (kinds.SIZE, "224", 224),
        (kinds.AT_LEAST_1, "7", 7),
        (kinds.AT_LEAST_0, np.int64(0), 0),
        (whole_number(), "-1", -1),
        (number(least=0, below=1), "1e-3", 1e-3),
        (number(least=0), "inf", math.inf),
        (finite(0), 3, 3.0),
        (kinds.BETWEEN, 0.5, 0.5),
        (one_of("auto", "exact"), "exact", "exact"),
        (kinds.MEMORY, "4GiB", 4 * 2**30),
        (kinds.MEMORY, "1.5 GB", 1_500_000_000),
        (kinds.MEMORY, "64k", 64_000),
        (kinds.MEMORY, 4096, 4096),
        (kinds.ALLOWANCE, 0, "0"),
        (kinds.ALLOWANCE, "0.5%", "0.5%"),
        (kinds.TEMPERATURE, "2", 2.0),
        (kinds.TEMPERATURE, "s3://b/c.json", "s3://b/c.json"),
        (kinds.SWITCH, True, True),
        (kinds.TEXTS, "psi < 1", ["psi < 1"]),
        (kinds.TEXTS, ["psi < 1", "ks < 1"], ["psi < 1", "ks < 1"]),
    ],
)
def test_texts_and_values_are_understood_alike(kind: ValueKind, given: Any, meant: Any) -> None:
    assert kind(given) == meant
    assert type(kind(given)) is type(meant)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (kinds.NUMBERS, "one"),
        (kinds.SIZE, "1x2x3"),
        (kinds.TEMPERATURE, "0"),
        (kinds.TEMPERATURE, "c.txt"),
        (kinds.SIZE, "0"),
        (kinds.AT_LEAST_1, "0"),
        (kinds.AT_LEAST_1, 1.0),
        (kinds.AT_LEAST_1, True),
        (kinds.AT_LEAST_0, "-1"),
        (whole_number(), "1.5"),
        (whole_number(), 2.0),
        (whole_number(), None),
        (number(), "nan"),
        (number(), True),
        (number(least=0), -1e-9),
        (number(least=0, below=1), 1),
        (kinds.POSITIVE, 0),
        (kinds.BETWEEN, 1),
        (finite(0), "inf"),
        (one_of("auto", "exact"), "Auto"),
        (kinds.MEMORY, "much"),
        (kinds.MEMORY, "0GiB"),
        (kinds.ALLOWANCE, "-1"),
        (kinds.ALLOWANCE, "101%"),
        (kinds.SWITCH, "yes"),
    ],
)
def test_anything_else_is_refused_by_what_was_meant(kind: ValueKind, given: Any) -> None:
    with pytest.raises(WrongValue) as caught:
        kind(given)
    assert str(caught.value) == f"{given!r} is not {kind.text}"


def test_argparse_shows_the_message_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", type=number(above=0, below=1))
    with pytest.raises(SystemExit):
        parser.parse_args(["--share", "2"])
    assert "argument --share: '2' is not a number above 0 and below 1\n" in capsys.readouterr().err


def test_the_limit_of_quarantined_rows_is_inclusive() -> None:
    assert not exceeds(3, 100, "3%")
    assert exceeds(4, 100, "3%")
    assert not exceeds(0, 0, "0")
