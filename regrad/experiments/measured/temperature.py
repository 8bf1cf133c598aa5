"""Whether it is the network's calibration that decides between methods: the same network at several temperatures.

Logits are divided by T, by way of the last layer's parameters, so that predictions stay what they are while the network
gets less sure (T > 1) or surer (T < 1) of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from regrad.experiments.material.experiments import Experiment, against
from regrad.experiments.material.models import MODELS
from regrad.experiments.measured.calibration import right
from regrad.experiments.measured.results import Result, mean_and_deviation
from regrad.experiments.measured.scoring import Setting, Study
from regrad.experiments.measured.separation import Runs, gather, results, rival_differences
from regrad.metrics import ece

PAIRS = (
    *against("mnist-cnn", "mnist", "omniglot", "fmnist"),
    *against("fmnist-cnn", "fmnist", "mnist", "omniglot"),
    *against("resnet20-cifar10", "cifar10", "cifar100-not-cifar10", "tinyimagenet-not-cifar10", "fmnist"),
)
ROWS = {
    "REGrad*": "regrad",
    "ExGrad": "exgrad",
    "Entropy": "entropy",
    "Max probability": "max_probability",
    "Max logit": "max_logit",
    "Energy": "energy",
}
TEMPERATURES = (0.5, 1, 2, 4)
CALIBRATION = "ECE of the known set"


def temperature(study: Study, pairs: Sequence[Experiment] = PAIRS) -> list[Result]:
    """AUROC and AUPR of some methods, what REGrad* is ahead by, and the calibration error, at every temperature."""
    return [
        result for experiment in pairs for divisor in TEMPERATURES for result in _column(study, experiment, divisor)
    ]


def _column(study: Study, experiment: Experiment, divisor: float) -> Iterator[Result]:
    """One pair at one temperature, a column beside the others."""
    runs = gather(study, experiment, _setting(divisor), None if MODELS[experiment.model].recipe else 1)
    place: dict[str, Any] = {"group": f"{experiment.group}, {experiment.name}", "experiment": f"T = {divisor:g}"}
    for result in (
        *results("temperature", experiment, ROWS, runs),
        *rival_differences("temperature", experiment, runs),
    ):
        yield replace(result, **place)
    yield Result(
        "temperature", **place, **_calibration(runs), runs_of=MODELS[experiment.model].seeds, images=runs.images
    )


def _setting(divisor: float) -> Setting:
    """Without noise, which changes next to nothing and costs ten times as much."""
    flags = {"samples": "0", "temperature": f"{divisor:g}"}
    return Setting(f"temperature-{divisor:g}", tuple(ROWS.values()), flags)


def _calibration(runs: Runs) -> dict[str, Any]:
    mean, deviation = mean_and_deviation([ece(columns["confidence"], right(columns)) for columns in runs.known])
    return {"row": CALIBRATION, "metric": "ECE", "mean": mean, "deviation": deviation, "runs": len(runs.known)}
