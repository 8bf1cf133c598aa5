"""Which columns of a run are scores."""

from __future__ import annotations

from typing import Any

from regrad.runs import scored


def test_standard_errors_are_no_scores(write_run: Any) -> None:
    output = write_run(
        "any", {"regrad": [1.0, 2.0], "regrad_se": [0.1, 0.1], "entropy": [0.5, 0.2], "their_se": [1, 2]}
    )
    assert scored.load_run("any", output).scores == ("regrad", "entropy", "their_se")
