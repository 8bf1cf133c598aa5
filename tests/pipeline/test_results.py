"""Results between processes."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from regrad.pipeline.results import (
    Committed,
    Measured,
    Note,
    Retried,
    SourceChanged,
    Spent,
    UnitResult,
    from_json,
    to_json,
)


@pytest.mark.parametrize(
    "result",
    [
        Committed({"unit": "0123", "rows_in": 3, "stop": None, "reasons": {"decode: empty file": 1}}),
        SourceChanged("s3://bucket/a.tar"),
        Measured(4, 1e-4, 2.5e-3),
        Retried({"slow down": 2}),
        Spent({"scoring": 1.5, "reading": 0.25}),
        Note("memory is short, 'nearly' out: \u20ac"),
    ],
    ids=lambda result: type(result).__name__,
)
def test_a_result_arrives_as_it_was(result: UnitResult) -> None:
    arrived = from_json(to_json(result))
    assert type(arrived) is type(result)
    assert asdict(arrived) == asdict(result)
