"""What an output depends on: its configuration, what may differ, and what a unit's key is made of."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from regrad import table
from regrad.errors import UsageError
from regrad.ledger import commit
from regrad.ledger.commit import NewUnit
from regrad.pipeline import manifest
from regrad.pipeline.options import OPTIONS, Options, parse
from regrad.settings.option import MEANING, NOTHING, VALUE
from regrad.settings.scoring import FITTED
from tests.ledger.test_commit import unit

REQUIRED = ["in", "--model", "m:build", "--output", "out"]
OTHER = ["--exponent", "1"]
PLAN = {"engine": "exact", "first_layer": 3, "directions": None, "why": "it is the cheapest"}


def options(*more: str) -> Options:
    return parse([*REQUIRED, *more], "score", None)


def run(*more: str, plan: dict[str, Any] = PLAN) -> dict[str, Any]:
    model = {"spec": "m:build", "fingerprint": "a" * 64, "class_names": ["cat", "dog"]}
    return json.loads(json.dumps(manifest.start(options(*more), model, plan)))


def test_the_configuration_is_what_rows_depend_on_as_json_has_it() -> None:
    config = manifest.configuration(options("--depth-decay", "inf", "--weights", "https://host/w?token=1"))
    assert config.keys() == {option.key for option in OPTIONS if option.decides != NOTHING and not option.later}
    assert {"output", "limit", "num_workers", "memory_budget"} & config.keys() == set()
    assert (config["depth_decay"], config["weights"]) == ("inf", "https://host/w?***")
    assert json.loads(json.dumps(config, allow_nan=False)) == config


def test_a_setting_that_outputs_are_older_than_is_in_a_configuration_where_it_is_set() -> None:
    """So that units which were committed before there was the setting stay valid."""
    older, default = manifest.configuration(options()), manifest.configuration(options("--exponent", "0.5"))
    assert "exponent" not in older
    assert older == default
    assert manifest.salt("a", older, PLAN) != manifest.salt(
        "a", manifest.configuration(options("--exponent", "1")), PLAN
    )
    assert manifest.differences(run(), options(*OTHER), "a" * 64) == ["exponent 0.5, now 1.0"]
    assert manifest.differences(run(*OTHER), options(), "a" * 64) == ["exponent 1.0, now 0.5"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], []),
        (["--num-workers", "3", "--limit", "5", "--batch-size", "8"], []),
        (["--sigma", "0.5", "--seed", "1"], ["sigma 0.02, now 0.5", "seed 0, now 1"]),
        (["--scores", "entropy,regrad"], ["scores regrad, now entropy,regrad"]),
        (["--unit-rows", "7"], ["unit-rows 1024, now 7"]),
        (["--weights", "other"], []),  # another name of the same network
    ],
)
def test_differences_are_named(more: list[str], told: list[str]) -> None:
    assert manifest.differences(run(), options(*more), "a" * 64) == told


def test_another_network_is_told_by_the_names_that_explain_it() -> None:
    assert manifest.differences(run(), options("--weights", "other"), "b" * 64) == ["weights None, now other"]
    (told,) = manifest.differences(run(), options(), "b" * 64)
    assert told == "the model's content (fingerprint aaaaaaaaaaaa, now bbbbbbbbbbbb)"


def test_some_levels_may_differ() -> None:
    asked = options("--sigma", "0.5", "--seed", "1", "--scores", "entropy", "--unit-rows", "7", "--id-column", "row")
    assert manifest.differences(run(), asked, "a" * 64, levels=(MEANING, VALUE)) == [
        "sigma 0.02, now 0.5",
        "seed 0, now 1",
    ]
    assert manifest.differences(run(), asked, "a" * 64, levels=(MEANING,)) == ["sigma 0.02, now 0.5"]


@pytest.mark.parametrize("name", FITTED)
def test_other_training_data_are_told_where_nothing_else_differs(name: str) -> None:
    held = run(plan=PLAN | {name: "1" * 16})
    assert manifest.differences(held, options(), "a" * 64, {name: "1" * 16}) == []
    (told,) = manifest.differences(held, options(), "a" * 64, {name: "2" * 16})
    assert told == f"what --fit-data holds ({name} {'1' * 16}, now {'2' * 16})"


def test_a_units_key_depends_on_what_decides_and_on_nothing_else() -> None:
    def salt(*more: str, fingerprint: str = "a", **plan: Any) -> str:
        return manifest.salt(fingerprint, manifest.configuration(options(*more)), PLAN | plan)

    same = salt()
    assert salt("--num-workers", "3", "--replace", "--memory-budget", "1GiB") == same
    assert salt("--weights", "other", "--temperature", "2") == same  # the fingerprint stands for the network
    assert salt(why="for another reason") == same
    for other in (
        salt(fingerprint="b"),
        salt("--sigma", "0.5"),
        salt("--seed", "1"),
        salt("--label-column", "y"),
        salt("--scores", "entropy"),
        salt(first_layer=4),
        salt(engine="sketch"),
        salt(depths={"most": 2e-3, "each": [{"first_layer": 3, "left_out": 0.0, "cost": 1.0}]}),
    ):
        assert other != same


def test_totals_are_of_the_ledger_and_taken_from_run_json_where_it_speaks_of_the_same_units(tmp_path: Path) -> None:
    output = str(tmp_path)
    keys = {"0" * 32, "1" * 32}
    for key in keys:
        commit.write_unit(output, NewUnit(*unit(key, labelled=2, correct=1, labels_outside=0, skipped={"hidden": 2})))
    ledger = commit.Ledger.read(output)
    counted = {"units": 2, "rows_in": 6, "rows_scored": 4, "rows_quarantined": 2, "labelled": 4, "correct": 2}
    counted |= {"labels_outside": 0, "skipped": {"hidden": 4}}
    assert manifest.held_totals(ledger, None) == counted
    told = dict.fromkeys(("units", *manifest.COUNTS), 7) | {"skipped": {"hidden": 7}}
    assert manifest.held_totals(ledger, {"counts": told | {"ledger": manifest.ledger_digest(keys)}}) == told
    assert manifest.held_totals(ledger, {"counts": told | {"ledger": "another"}}) == counted
    assert manifest.ledger_digest(sorted(keys)) == manifest.ledger_digest(sorted(keys, reverse=True))


def test_units_without_run_json_are_refused(tmp_path: Path) -> None:
    assert manifest.existing(str(tmp_path)) is None
    commit.write_unit(str(tmp_path), NewUnit(*unit()))
    with pytest.raises(UsageError, match=r"holds units but no run\.json"):
        manifest.existing(str(tmp_path))
    table.write_run(str(tmp_path), run())
    held = manifest.existing(str(tmp_path))
    assert held is not None
    assert (held["status"], held["schema_version"]) == ("running", table.SCHEMA_VERSION)


def test_versions_are_of_what_is_installed() -> None:
    versions = manifest.versions()
    assert versions["python"].startswith("3.")
    assert {"torch", "pyarrow", "ray"} <= versions.keys()
    assert copy.copy(versions) == {name: str(version) for name, version in versions.items()}
