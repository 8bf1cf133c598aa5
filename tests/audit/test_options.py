"""The settings of an audit that make no sense, each refused before anything is read."""

from __future__ import annotations

import pytest

from regrad import storage
from regrad.audit import history, notify
from regrad.audit.gates import parse_gates
from regrad.audit.options import FIRST, OPTIONS, check_options
from regrad.errors import UsageError
from regrad.pipeline.options import Options, parse

REQUIRED = ["in", "--model", "m:build", "--output", "out"]


def options(*more: str) -> Options:
    return parse([*REQUIRED, *more], "audit", None, OPTIONS, FIRST)


def test_what_is_said_of_the_night() -> None:
    checked = check_options(options("--baseline", "b", "--gate", "psi < 1", "ks < 1", "--night", "n-1"), {})
    assert (checked.gates, checked.night, checked.webhook) == (parse_gates(["psi < 1", "ks < 1"]), "n-1", None)
    assert check_options(options("--baseline", "b"), {}).night == history.tonight()


def test_a_webhook_is_a_flag_or_a_variable_and_never_shown() -> None:
    environment = {notify.VARIABLE: "https://hooks.example.org/environment-secret"}
    assert check_options(options("--baseline", "b"), environment).webhook == environment[notify.VARIABLE]
    given = "https://hooks.example.org/given-secret"
    assert check_options(options("--baseline", "b", "--notify", given), environment).webhook == given
    assert "secret" not in storage.mask(f"{given} {environment[notify.VARIABLE]}")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--baseline missing"),
        (["--baseline", "b", "--score", "gini"], "--score gini: not among --scores regrad"),
        (["--baseline", "./out"], "--baseline and --output are the same"),
        (["--baseline", "b", "--keep-nights", "7"], r"--keep-nights 7: must be at least --nights 7 \+ 1"),
        (["--baseline", "b", "--threshold", "quantile=2"], "a quantile is a number between 0 and 1"),
        (["--baseline", "b", "--night", "../x"], "--night '../x'"),
        (["--baseline", "b", "--gate", "luck > 1"], "no metric luck"),
        (["--baseline", "b", "--notify", "ftp://host"], "--notify: not an http"),
    ],
)
def test_what_makes_no_sense_is_refused(more: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(options(*more), {})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--nights", "-1"], "--nights '-1': must be a whole number of at least 0"),
        (["--top", "few"], "--top 'few': must be a whole number of at least 0"),
        (["--thumbnail-seconds", "0"], "--thumbnail-seconds '0': must be a number above 0"),
    ],
)
def test_values_of_another_kind_are_refused_by_the_parser(more: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        options(*more)


def test_no_option_has_the_name_of_one_of_scoring() -> None:
    with pytest.raises(UsageError, match="did you mean --baseline"):
        options("--basline", "b")
    assert options("--gate", "psi < 1", "--gate", "ks < 1").gate == ["psi < 1", "ks < 1"]
