"""Table 2: how well each method orders the predictions on the known set, from right to wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from regrad.experiments.material import methods
from regrad.experiments.material.experiments import Experiment
from regrad.experiments.material.image_sets import IMAGE_SETS
from regrad.experiments.material.models import MODELS
from regrad.experiments.measured.results import Result, beside_paper, mean_and_deviation
from regrad.experiments.measured.scoring import Columns, Setting, Study, scored
from regrad.experiments.measured.separation import EVERY, RESAMPLES
from regrad.metrics import counted, paired, raulc
from regrad.metrics.arrays import FloatArray

METRIC = "rAULC"


def calibration(study: Study, pairs: Sequence[Experiment], setting: Setting = EVERY) -> list[Result]:
    """rAULC of every method on the known set of every network of Table 1: from the same scores."""
    return by_network(study, pairs, setting, "calibration", methods.PAPER | methods.OURS)


def by_network(
    study: Study, pairs: Sequence[Experiment], setting: Setting, table: str, rows: Mapping[str, str]
) -> list[Result]:
    """rAULC of ``rows`` (method -> score) on the known set of every network."""
    first = {each.model: each for each in reversed(pairs)}
    order = [each for each in pairs if first[each.model] is each]
    return [cell for each in order for cell in _results(study, each, setting, table, rows)]


def _results(
    study: Study, experiment: Experiment, setting: Setting, table: str, rows: Mapping[str, str]
) -> Iterator[Result]:
    model, title = MODELS[experiment.model], IMAGE_SETS[experiment.known].title
    seeds = range(study.seeds if model.recipe else 1)
    runs = [
        columns_of[experiment.known]
        for seed in seeds
        for columns_of in [scored(study, experiment.model, seed, [experiment.known], setting)]
        if experiment.known in columns_of
    ]
    images = max((len(run["label"]) for run in runs), default=0)
    runs = [run for run in runs if len(run["label"]) == images]
    for row, score in rows.items():
        pairs = [(run[score], right(run)) for run in runs if score in run]
        mean, deviation = mean_and_deviation([raulc(*pair) for pair in pairs])  # of the runs with an error at all
        ends = interval(pairs) if mean is not None else None
        yield Result(
            table=table,
            group=model.title,
            experiment=title,
            row=row,
            metric=METRIC,
            mean=mean,
            deviation=deviation,
            low=None if ends is None or mean is None else mean + ends[0],
            high=None if ends is None or mean is None else mean + ends[1],
            runs=len(pairs),
            runs_of=model.seeds,
            images=images,
            **beside_paper(table, title, row, METRIC),
        )


def right(columns: Columns) -> FloatArray:
    """(n,) 1 where the prediction is the label, else 0."""
    return (columns["prediction"] == columns["label"]).astype(np.float64)


def interval(pairs: list[tuple[FloatArray, FloatArray]]) -> tuple[float, float] | None:
    """How far below and above its mean over runs rAULC may lie, had other images been drawn."""
    counters = [paired.counter(score, correct.astype(np.int64)) for score, correct in pairs]

    def statistic(weights: FloatArray) -> dict[str, FloatArray]:
        values = []
        for counter in counters:
            wrong, correct = paired.counts(weights, counter)
            values.append(counted.raulc(correct, wrong))
        return {METRIC: np.mean(values, axis=0)}

    images = len(pairs[0][0])
    return paired.deviations(statistic, [images], [images], RESAMPLES)[METRIC]
