"""How many predictions of a run are right, told without its labels: from labelled images of another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from regrad.formatting import percent
from regrad.metrics import bootstrap
from regrad.metrics.counted import thresholded_accuracy
from regrad.runs.scored import Floats
from regrad.runs.survey import Survey

#: How far below the labelled images' accuracy an estimate may lie, and how far from the truth 95 % of such estimates
#: were on measured shifts: docs/labels.md. What lies further below was off by up to half of all images; it is not told.
MEASURED = ((0.025, 0.017), (0.05, 0.027))
FARTHEST = MEASURED[-1][0]
FEWEST = 100  # labelled images


def estimate_accuracy(known: Survey, new: Survey) -> dict[str, Any] | None:
    """Average thresholded confidence: see :func:`regrad.metrics.counted.thresholded_accuracy`.

    Args:
        known: whose labels set the threshold.
        new: whose images are asked about; its labels are not looked at.

    Returns:
        ``accuracy``; its ``interval``, that of the bootstrap over the images of both runs, wider on both sides by the
        measured error of such an estimate; ``known``, the accuracy of the labelled images; ``farthest``, how far below
        that an estimate may lie. Beyond that ``accuracy`` and ``interval`` are None. None where ``known`` has fewer
        than 100 labelled images.
    """
    if known.labelled < FEWEST:
        return None
    labelled, images = known.confidence.images, new.confidence.images.sum(0) + new.confidence.unjudged
    told = {"accuracy": None, "interval": None, "known": labelled[1].sum() / labelled.sum(), "farthest": FARTHEST}

    def statistic(drawn: Any, others: Any) -> dict[str, Floats]:
        return {"accuracy": thresholded_accuracy(drawn[..., 0, :], drawn[..., 1, :], others)}

    accuracy = float(statistic(labelled, images)["accuracy"])
    error = next((error for drop, error in MEASURED if told["known"] - accuracy <= drop), None)
    ends = bootstrap.intervals(statistic, [labelled, images])["accuracy"]
    if error is None or ends is None:
        return told
    low, high = np.clip([ends[0] - error, ends[1] + error], 0, 1).tolist()
    return told | {"accuracy": accuracy, "interval": [low, high]}


def estimate_in_words(estimate: Mapping[str, Any] | None, known: str) -> list[str]:
    """A sentence about an estimate from the labels of ``known``; none where there is none."""
    if not estimate:
        return []
    labelled = f"{percent(estimate['known'])} of the labelled images of the {known}"
    if estimate["accuracy"] is None:
        return [
            f"The network is less sure than where it is right on {labelled}: by that, its accuracy is more than "
            f"{100 * estimate['farthest']:.0f} points lower, and how much lower cannot be told without labels."
        ]
    low, high = estimate["interval"]
    return [
        f"Estimated without labels, the network is right on {percent(estimate['accuracy'])} ({percent(low)} to "
        f"{percent(high)}) if all images are of classes that it knows; it is on {labelled}."
    ]
