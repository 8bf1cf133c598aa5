"""The nightly in Airflow, Dagster and Argo: each by what exit codes make of it; of the programs, stand-ins."""

from __future__ import annotations

import re
import runpy
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from regrad.audit.options import OPTIONS, check_options
from regrad.commands import filter as filter_command
from regrad.pipeline import options
from tests.infra.test_manifests import INFRA, commands, one

AGAIN, FINAL = (1, 130, 137, 143), (2, 3, 4)
ARGO = "kubernetes/argo-cronworkflow.yaml"


class Step:
    """What a decorator of either program makes of a function: called in a graph, it is noted and comes after others."""

    order: list[tuple[str, ...]] = []

    def __init__(self, function: Callable[[], None]):
        self.function, self.name = function, function.__name__

    def __call__(self, *before: Step) -> Step:
        Step.order += [(step.name, self.name) for step in before]
        return self

    def __rshift__(self, later: Step) -> Step:
        Step.order.append((self.name, later.name))
        return later


class Failure(Exception):
    def __init__(self, text: str, metadata: dict[str, Any], allow_retries: bool):
        super().__init__(text)
        self.allow_retries = allow_retries


class AirflowFailException(Exception):
    pass


def with_settings(**told: Any) -> Callable[[Any], Any]:
    """A decorator with arguments, which are kept."""
    settings.update(told)
    return lambda function: Step(function) if "retry_policy" in told else function


settings: dict[str, Any] = {}


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of Airflow and Dagster as the files name."""
    Step.order.clear()
    settings.clear()
    dagster = types.ModuleType("dagster")
    names = ("RetryPolicy", "Out", "In", "Nothing", "Definitions", "RunsFilter", "SkipReason", "RunRequest")
    for name in names:
        setattr(dagster, name, lambda *_, **told: told)
    told = {"op": with_settings, "job": with_settings, "schedule": with_settings, "Failure": Failure}
    for name, value in (told | {"ScheduleEvaluationContext": object}).items():
        setattr(dagster, name, value)
    sdk, exceptions = types.ModuleType("airflow.sdk"), types.ModuleType("airflow.sdk.exceptions")
    sdk.dag, sdk.task = with_settings, Step  # type: ignore[attr-defined]
    exceptions.AirflowFailException = AirflowFailException  # type: ignore[attr-defined]
    modules = {"dagster": dagster, "airflow": types.ModuleType("airflow"), "airflow.sdk": sdk}
    for name, module in (modules | {"airflow.sdk.exceptions": exceptions}).items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def regrad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, which notes its arguments and ends with the code it is told."""
    program = tmp_path / "bin/regrad"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/called\nexit $REGRAD_TEST_CODE\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/bin:/usr/bin")
    return tmp_path / "called"


def loaded(name: str) -> dict[str, Any]:
    module = runpy.run_path(str(INFRA / "schedulers" / name))
    if name == "dagster_job.py":
        module["regrad_nightly"]()
    return module


FILES = ("airflow_dag.py", "dagster_job.py")


def tried_again(error: Exception) -> bool:
    return error.allow_retries if isinstance(error, Failure) else not isinstance(error, AirflowFailException)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("name", FILES)
def test_an_exit_code_decides_what_comes_of_a_step(name: str, regrad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = loaded(name)
    monkeypatch.setenv("REGRAD_TEST_CODE", "0")
    module["run"](module["AUDIT"])
    assert regrad.read_text().splitlines() == ["submit", "--", *module["AUDIT"]]
    for code in (*AGAIN, *FINAL):
        monkeypatch.setenv("REGRAD_TEST_CODE", str(code))
        with pytest.raises(Exception, match=f"exit code {code}: ") as told:
            module["run"](module["AUDIT"])
        assert tried_again(told.value) == (code in AGAIN), code


def words(command: list[str]) -> list[str]:
    """As the manifests spell it."""
    return sorted(" ".join(command).replace("=s3", " s3").replace("=", " ").split())


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("name", FILES)
def test_they_run_the_night_of_the_manifests_and_filter_after_it(name: str) -> None:
    module = loaded(name)
    assert Step.order == [("audit", "keep")]
    assert words(module["AUDIT"]) == words(commands()["cronjob"])
    check_options(options.parse(module["AUDIT"][2:], "audit", None, OPTIONS), {})
    filter_command.parse(module["FILTER"][2:])
    assert "15 2 * * *" in settings.values()


def test_argo_runs_the_same_and_tries_again_by_exit_code() -> None:
    spec = one(ARGO)["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    templates = {template["name"]: template for template in spec["workflowSpec"]["templates"]}
    night = templates[spec["workflowSpec"]["entrypoint"]]
    assert [[step["template"] for step in group] for group in night["steps"]] == [["audit"], ["filter"]]
    audit, keep = (templates[name]["container"]["args"] for name in ("audit", "filter"))
    assert words(audit) == words(commands()["cronjob"])
    module_filter = re.search(r"FILTER = \[\n(.*?)\]", (INFRA / "schedulers/airflow_dag.py").read_text(), re.DOTALL)
    assert module_filter
    assert words(keep) == words(re.findall(r'"([^"]+)"', module_filter[1]))
    filter_command.parse(keep[2:])
    for name in ("audit", "filter"):
        expression = templates[name]["retryStrategy"]["expression"]
        assert all(is_tried_again(expression, "Failed", code) == (code in AGAIN) for code in (*AGAIN, *FINAL))
        assert is_tried_again(expression, "Error", -1)


def is_tried_again(expression: str, status: str, code: int) -> bool:
    """Of an expression in the language expr, as far as this one goes: its operators as Python spells them."""
    python = expression.replace("||", " or ").replace("&&", " and ").replace("!(", " not (")
    known = {"lastRetry": types.SimpleNamespace(status=status, exitCode=str(code)), "asInt": int}
    verdict: bool = eval(python, {"__builtins__": {}}, known)
    return verdict


def test_the_three_are_parsed_as_what_they_are() -> None:
    assert yaml.safe_load((INFRA / ARGO).read_text())["apiVersion"] == "argoproj.io/v1alpha1"
    for name in FILES:
        compile((INFRA / "schedulers" / name).read_text(), name, "exec")
