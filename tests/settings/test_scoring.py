"""The table of the scorer's settings against the scorer itself."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest

from regrad import Scorer, UsageError
from regrad.settings.option import MEANING, ROWS, VALUE
from regrad.settings.scoring import COMPARABLE, FITTED, SCORER, check_values, comparable

# What a scorer is given that is no setting: what it scores with, and where and in how much memory.
OTHERS = {"self", "classifier", *FITTED, "memory_budget", "device", "plan"}


def test_every_setting_is_a_parameter_with_the_same_default() -> None:
    parameters = inspect.signature(Scorer.__init__).parameters
    defaults = {name: item.default for name, item in parameters.items() if name not in OTHERS}
    assert {option.key: option.default for option in SCORER} == defaults | {"scores": list(defaults["scores"])}
    assert all(option.role == "scorer" for option in SCORER)


def test_every_setting_is_told_in_the_docstring() -> None:
    said = inspect.getdoc(Scorer) or ""
    assert [option.key for option in SCORER if option.key not in said] == []


def test_the_defaults_are_of_their_kind() -> None:
    check_values({option.key: option.default for option in SCORER})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sigma": math.inf}, "sigma inf: must be a finite number of at least 0"),
        ({"sigma": math.nan}, "sigma nan: must be a finite number of at least 0"),
        ({"depth_decay": -1}, "depth decay -1: must be a number of at least 0"),
        ({"samples": "10"}, "samples '10': must be a whole number of at least 0"),
        ({"seed": 1.5}, "seed 1.5: must be a whole number"),
        ({"tolerance": 1.0}, "tolerance 1.0: must be a number of at least 0 and below 1"),
        ({"dropout_rate": 1}, "dropout rate 1: must be a number of at least 0 and below 1"),
        ({"directions": 0}, "directions 0: must be a whole number of at least 1"),
        ({"coverage": 1.0}, "coverage 1.0: must be a number above 0 and below 1"),
        ({"standard_errors": 1}, "standard errors 1: must be true or false"),
    ],
)
def test_a_value_of_another_kind_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_values(values)
    assert str(caught.value) == message


def test_numbers_of_other_libraries_are_numbers() -> None:
    check_values({"samples": np.int64(3), "sigma": np.float32(0.5), "depth_decay": math.inf, "tolerance": 0})
    check_values({"coverage": None})


def test_what_a_setting_decides() -> None:
    decided = {option.key: option.decides for option in SCORER}
    which_columns = {"scores", "standard_errors", "logits", "embeddings", "coverage"}
    assert {key for key, level in decided.items() if level == ROWS} == which_columns
    assert {key for key, level in decided.items() if level == VALUE} == {"seed"}
    assert set(COMPARABLE) == {key for key, level in decided.items() if level == MEANING}
    assert {"sigma", "samples", "engine", "tolerance", "draws", "precision"} <= set(COMPARABLE)


def test_a_stored_configuration_means_the_default_of_what_is_younger_than_it() -> None:
    assert comparable({"sigma": 0.1})["exponent"] == 0.5
    assert comparable({"sigma": 0.1, "exponent": 0.25})["exponent"] == 0.25
    assert comparable({})["sigma"] is None
