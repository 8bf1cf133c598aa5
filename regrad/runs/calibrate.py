"""A temperature and quantiles of the labels' losses, from a labelled run that kept its logits."""

from __future__ import annotations

from typing import Any

import numpy as np

from regrad import storage
from regrad.calibration import Calibration
from regrad.errors import UsageError
from regrad.metrics.conformal import Quantiles
from regrad.metrics.temperature import Labels, Logits, fit_temperature, label_losses
from regrad.runs.labelled import read_labelled
from regrad.runs.scored import Run
from regrad.runs.survey import Confidence, Losses

FEWEST = 100  # labelled images


def fit_calibration(run: Run) -> Calibration:
    """T fitted on one half of the labelled images, quantiles of -log softmax(z / T)[y] over the other half.

    The halves are drawn at random, the same every time. Had T seen the images of the quantiles, these would no longer
    be exchangeable with new ones, and prediction sets would promise nothing. What T does is told of images that it was
    not fitted on: of each half with the T of the other.

    Raises:
        UsageError: the run is not complete, kept no logits, was scored with a temperature, has too few labels, or none
            that a temperature fits.
        RegradError: the storage refused or failed.
    """
    _refuse_unfit(run)
    labelled = read_labelled(run)
    logits, labels = labelled.logits, labelled.labels
    where = storage.mask(run.output)
    if len(labels) < FEWEST:
        raise UsageError(f"{where}: {len(labels)} labelled images; a calibration takes {FEWEST} at least")
    middle = len(labels) // 2
    halves = [(logits[:middle], labels[:middle]), (logits[middle:], labels[middle:])]
    try:
        temperatures = [fit_temperature(*half) for half in halves]
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
    ours, other = temperatures
    made_of = {
        "output": where,
        "finished": run.info.get("finished"),
        "images": labelled.images,
        "temperature_images": middle,
        "quantile_images": len(labels) - middle,
    }
    about = {
        "regrad_version": run.info.get("regrad_version"),
        "fitted_on": made_of,
        "temperature_of_other_half": other,
        "held_out": {
            "before": _judged(halves, [1.0, 1.0]),
            "after": _judged(halves, [other, ours]),
        },
    }
    model = {name: run.model.get(name) for name in ("spec", "network", "fingerprint", "classes")}
    return Calibration(ours, Quantiles.of(label_losses(*halves[1], ours)), model, about)


def _refuse_unfit(run: Run) -> None:
    where, status = storage.mask(run.output), run.info.get("status")
    if status != "done":
        raise UsageError(f"{where}: its run is not complete (status {status}); run its command again")
    divided = run.info.get("config", {}).get("temperature", 1)
    if divided != 1:
        raise UsageError(f"{where}: scored with --temperature {divided}; calibrate a run without one")


def _judged(halves: list[tuple[Logits, Labels]], temperatures: list[float]) -> dict[str, Any]:
    """``accuracy, nll, ece`` and their ``intervals`` of both halves together, each divided by its own temperature."""
    confidence, losses = Confidence(), Losses()
    for (logits, labels), temperature in zip(halves, temperatures, strict=True):
        predictions = logits.argmax(1)
        confidence.add(np.exp(-label_losses(logits, predictions, temperature)), predictions == labels)
        losses.add(label_losses(logits, labels, temperature))
    intervals = {**confidence.intervals(), **losses.intervals()}
    return {**confidence.numbers(), "nll": losses.mean(), "intervals": intervals}
