"""Which score of a run finds the classifier's errors best, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from regrad.metrics import counted, paired
from regrad.runs.sampled import Sampled
from regrad.runs.scored import Floats


def at_errors(aurocs: Mapping[str, float | None], sample: Sampled) -> dict[str, Any] | None:
    """The score with the largest AUROC of finding errors, A_best, and A_best - A of every other one.

    The intervals are of the differences on the same images. A score is ``level`` with the best one where its interval
    holds 0 or less; another is surely behind.

    Args:
        aurocs: score -> A on all labelled images, in the order of the sample's columns.
        sample: of these images.

    Returns:
        ``score, auroc, level`` (names), ``behind`` (score -> ``difference`` and ``interval``, smallest first), and
        ``sampled``, the images that intervals are from; None for fewer than two scores with an AUROC.

    Source: the percentile bootstrap of :func:`regrad.metrics.paired.deviations`.
    """
    known = {name: value for name, value in aurocs.items() if value is not None}
    if len(known) < 2:
        return None
    best = max(known, key=lambda name: known[name])
    values, wrong = sample.rows()
    counters = {
        name: paired.counter(np.nan_to_num(column), np.where(np.isnan(column), -1, wrong))
        for name, column in zip(aurocs, values.T, strict=True)
        if name in known
    }

    def statistic(weights: Floats) -> dict[str, Floats]:
        drawn = {name: counted.auroc(*paired.counts(weights, counter)) for name, counter in counters.items()}
        return {name: drawn[best] - own for name, own in drawn.items() if name != best}

    offsets = paired.deviations(statistic, [len(wrong)], [sample.images])
    behind: dict[str, dict[str, Any]] = {}
    for name in sorted(offsets, key=lambda name: -known[name]):
        difference, ends = known[best] - known[name], offsets[name]
        interval = None if ends is None else [difference + ends[0], difference + ends[1]]
        behind[name] = {"difference": difference, "interval": interval}
    level = [name for name, own in behind.items() if own["interval"] is None or own["interval"][0] <= 0]
    return {"score": best, "auroc": known[best], "level": level, "behind": behind, "sampled": len(wrong)}
