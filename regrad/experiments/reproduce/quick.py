"""Every table in a small form, in a minute or so each: few images, one run, and networks that are trained briefly.

What is measured is the same, by the same code; the numbers are for trying things out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from regrad.experiments.material import methods
from regrad.experiments.material.experiments import against
from regrad.experiments.material.shifts import SHIFTS, Nights
from regrad.experiments.material.tasks import QUICK_TASKS
from regrad.experiments.measured import (
    calibration,
    drift,
    hyperparameters,
    in_use,
    labelling,
    probes,
    runtime,
    separation,
    sketched,
    temperature,
)
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Setting, Study

FAR = against("mnist-cnn-quick", "mnist", "omniglot", "fmnist")
NEAR = against("resnet20-cifar10", "cifar10", "tinyimagenet-not-cifar10")
SVHN = against("svhn-cnn", "svhn", "cifar10")
VIT = against("mnist-vit-quick", "mnist", "omniglot", "fmnist")
SETTING = Setting("quick", methods.EVERY_SCORE, {"samples": "2", "draws": "2", "fit-limit": "300"})
IN_USE = replace(in_use.SETTING, flags=in_use.SETTING.flags | {"fit-limit": "300"})
NIGHTS = Nights(20, "cifar10", 60, 4, 4)  # as few as are compared
FEW_SHIFTS = {name: SHIFTS[name] for name in ("nothing", "jpeg-75", "svhn-10", "a-class")}

#: Table -> what computes its small form.
QUICK: dict[str, Callable[[Study], list[Result]]] = {
    "ood": partial(separation.separation, table="ood", pairs=(*FAR, *NEAR, *SVHN), setting=SETTING),
    "calibration": partial(calibration.calibration, pairs=(*FAR, *NEAR, *SVHN), setting=SETTING),
    **{name: partial(labelling.labelling, table=name, tasks=tasks) for name, tasks in QUICK_TASKS.items()},
    "ablation": partial(separation.ablation, pairs=(*FAR, *NEAR, *SVHN), setting=SETTING),
    "hyperparameters": partial(hyperparameters.hyperparameters, pairs=FAR[-1:]),
    "temperature": partial(temperature.temperature, pairs=(*FAR, *NEAR)),
    "architecture": partial(separation.separation, table="architecture", pairs=(*VIT, *FAR), setting=SETTING),
    "scores": partial(in_use.in_use, pairs=(*FAR, *NEAR), setting=IN_USE),
    "scores-errors": partial(in_use.errors_in_use, pairs=(*FAR, *NEAR), setting=IN_USE),
    "probes": partial(probes.probes, pairs=FAR, truth=IN_USE, beside=NEAR),
    "sketch": partial(sketched.sketched, pairs=FAR[-1:]),
    "drift": partial(drift.found_drift, nights=[NIGHTS], shifts=FEW_SHIFTS),
    "runtime": partial(runtime.runtime, networks=("mnist-cnn-quick", "resnet20-cifar10")),
}
