"""The table of scores."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from regrad.errors import UsageError
from regrad.scores import SCORES, find_scores, in_order, load_module, registry


def test_every_score_says_in_one_line_what_it_is() -> None:
    for name, score in SCORES.items():
        assert name == score.name
        assert 10 < len(score.description.splitlines()[0]) < 110
        assert "Source:" in (score.compute.__doc__ or "")


def test_unknown_scores_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no score energyy \(did you mean energy\?\); the scores are regrad"):
        find_scores(["regrad", "energyy"])


MODULE = """
from regrad.scores import Inputs, Norms, score

@score(Norms(smoothed=False, decayed=True))
def largest_norm(inputs: Inputs):
    \"\"\"max_c ||a * g_c||. Source: a user's own module.\"\"\"
    return inputs.norms.amax(1)
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_scores.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_scores", raising=False)
    monkeypatch.setattr(registry, "SCORES", dict(SCORES))
    return "my_scores"


def test_a_module_of_the_users_own_adds_scores(own_module: str) -> None:
    load_module(own_module)
    assert registry.find_scores(["largest_norm"])[0].description.startswith("max_c ||a * g_c||")
    load_module(own_module)  # a second time changes nothing


def test_a_module_without_scores_or_without_existence_is_refused(own_module: str) -> None:
    with pytest.raises(UsageError, match="--score-module math: it defines no score"):
        load_module("math")
    with pytest.raises(UsageError, match="--score-module nowhere: No module named 'nowhere'"):
        load_module("nowhere")


def test_a_name_that_is_taken_is_refused(own_module: str, tmp_path: Path) -> None:
    (tmp_path / "my_scores.py").write_text(MODULE.replace("largest_norm", "entropy"))
    with pytest.raises(UsageError, match="my_scores: a score entropy is there already"):
        load_module(own_module)


def test_a_name_of_a_column_that_every_table_has_is_refused(own_module: str, tmp_path: Path) -> None:
    (tmp_path / "my_scores.py").write_text(MODULE.replace("largest_norm", "nll"))
    with pytest.raises(UsageError, match="my_scores: the score table has a column nll of its own"):
        load_module(own_module)


def test_installed_packages_add_scores_and_cannot_break_the_others(
    own_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [EntryPoint("x", "no_such_package", "regrad.scores"), EntryPoint("y", own_module, "regrad.scores")]
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: entries)
    monkeypatch.setattr(registry, "_loaded", [])
    with pytest.warns(UserWarning, match="scores of no_such_package cannot be loaded"):
        assert in_order(["entropy", "largest_norm", "entropy", "regrad"]) == ["regrad", "entropy", "largest_norm"]
