"""The rows of the tables are scores that there are, and those with training data are the ones that need any."""

from __future__ import annotations

from regrad.experiments.material import methods
from regrad.scores import SCORES, load_module


def test_every_method_is_a_score_that_there_is() -> None:
    named = {**methods.PAPER, **methods.OURS, **methods.ABLATION, **methods.RIVALS}
    assert set(named.values()) - {*methods.BARE.values()} <= SCORES.keys()
    load_module("regrad.experiments.measured.bare")
    assert {*methods.ALL.values(), *methods.IN_USE.values(), *methods.WITH_DATA.values()} <= SCORES.keys()


def test_scores_that_need_training_data_stand_apart() -> None:
    load_module("regrad.experiments.measured.bare")
    assert {name for name in methods.IN_USE.values() if SCORES[name].fitted} == set()
    fitted = {name for name, item in SCORES.items() if item.fitted == "statistics"}
    assert set(methods.WITH_DATA.values()) == fitted
