"""The table of scores."""

from __future__ import annotations

import pytest

from regrad.errors import UsageError
from regrad.scores import SCORES, find_scores


def test_every_score_says_in_one_line_what_it_is() -> None:
    for name, score in SCORES.items():
        assert name == score.name
        assert 10 < len(score.summary) < 110
        assert "Source:" in (score.compute.__doc__ or "")


def test_unknown_scores_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no score energyy; the scores are regrad"):
        find_scores(["regrad", "energyy"])
