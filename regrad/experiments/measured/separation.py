"""Tables 1 and 4: how well each method tells a set that the network knows from one that it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regrad.experiments.material import methods
from regrad.experiments.material.experiments import Experiment
from regrad.experiments.material.models import MODELS
from regrad.experiments.measured.results import Result, beside_paper, mean_and_deviation
from regrad.experiments.measured.scoring import Columns, Setting, Study, scored
from regrad.metrics import aupr, auroc, counted, paired
from regrad.metrics.arrays import FloatArray

RESAMPLES = 400
METRICS = {"AUROC": auroc, "AUPR": aupr}
EVERY = Setting("all", methods.EVERY_SCORE)
DRAWN = Setting("drawn", methods.DRAWN)
BARE = Setting("bare", tuple(methods.BARE.values()), {"score-module": "regrad.experiments.measured.bare"})


@dataclass(frozen=True)
class Runs:
    """The scores of one experiment: one pair of known and unknown columns for each run, image by image the same."""

    known: Sequence[Columns]
    unknown: Sequence[Columns]

    @property
    def images(self) -> int:
        """Of each set; none where nothing was scored."""
        return len(self.known[0]["prediction"]) if self.known else 0

    def of(self, score: str) -> list[tuple[FloatArray, FloatArray]]:
        """The runs that have this score."""
        return [(k[score], u[score]) for k, u in zip(self.known, self.unknown, strict=True) if score in k]


def gather(study: Study, experiment: Experiment, setting: Setting = EVERY, seeds: int | None = None) -> Runs:
    """All runs of an experiment, with equally many images of both sets, the same ones in every run.

    A run that was stopped and has fewer images than another is left out. A published network is the same for all
    seeds, so only what draws random numbers runs again.
    """
    pairs = []
    for seed in range(seeds or study.seeds):
        again = seed > 0 and MODELS[experiment.model].recipe is None
        sets = [experiment.known, experiment.unknown]
        columns_of = scored(study, experiment.model, seed, sets, DRAWN if again else setting)
        if setting.scores == EVERY.scores and not again:
            bare = scored(study, experiment.model, seed, sets, BARE)
            columns_of = {name: _both(columns, bare.get(name, {})) for name, columns in columns_of.items()}
        if experiment.known in columns_of and experiment.unknown in columns_of:
            pairs.append((columns_of[experiment.known], columns_of[experiment.unknown]))
    sizes = [min(len(columns["prediction"]) for columns in pair) for pair in pairs]
    images = max(sizes, default=0)
    pairs = [pair for pair, size in zip(pairs, sizes, strict=True) if size == images]
    cut = [_cut(pair, images) for pair in pairs]
    return Runs([known for known, _ in cut], [unknown for _, unknown in cut])


def _cut(pair: tuple[Columns, Columns], images: int) -> tuple[Columns, Columns]:
    """The first ``images`` of both sets, and the columns that both have: a run may have been stopped between them."""
    names = [name for name in pair[0] if name in pair[1]]
    known, unknown = ({name: columns[name][:images] for name in names} for columns in pair)
    return known, unknown


def _both(columns: Columns, more: Columns) -> Columns:
    """The columns of two settings for the images that both have scored."""
    images = min(len(values) for values in (*columns.values(), *more.values()))
    return {name: values[:images] for name, values in (more | columns).items()}


def results(table: str, experiment: Experiment, rows: Mapping[str, str], runs: Runs) -> Iterator[Result]:
    """AUROC and AUPR of each method, in percent; without a number where there are no runs."""
    kind = MODELS[experiment.model].seeds
    common: dict[str, Any] = {"table": table, "group": experiment.group, "experiment": experiment.name}
    spreads = interval_offsets(runs, rows) if runs.images else {}
    for row, score in rows.items():
        pairs = runs.of(score)
        for metric, function in METRICS.items():
            mean, deviation = mean_and_deviation([100 * function(known, unknown) for known, unknown in pairs])
            low, high = spreads.get((row, metric), (None, None))
            yield Result(
                **common,
                row=row,
                metric=metric,
                mean=mean,
                deviation=deviation,
                low=None if low is None or mean is None else mean + low,
                high=None if high is None or mean is None else mean + high,
                runs=len(pairs),
                runs_of=kind,
                images=runs.images,
                **beside_paper(table, experiment.name, row, metric),
            )


def rival_differences(table: str, experiment: Experiment, runs: Runs) -> Iterator[Result]:
    """REGrad* minus each of its rivals, AUROC in points, with the interval of the difference on the same images."""
    if not runs.images:
        return
    fixed = MODELS[experiment.model].recipe is None  # what draws nothing was scored once, in the first run
    needed = runs.known[:1] if fixed else runs.known
    rivals = {row: score for row, score in methods.RIVALS.items() if all(score in columns for columns in needed)}
    spreads = interval_offsets(runs, {"REGrad*": "regrad", **rivals}, against="REGrad*")
    for row, score in rivals.items():
        values = [
            100 * (auroc(*pair) - auroc(*other))
            for pair, other in zip(runs.of("regrad"), _again(runs, score), strict=True)
        ]
        mean, deviation = mean_and_deviation(values)
        low, high = spreads[row, "AUROC"]
        assert mean is not None
        yield Result(
            table, experiment.group, experiment.name, row, "AUROC", mean, deviation, mean + low, mean + high,
            len(values), MODELS[experiment.model].seeds, runs.images,
        )  # fmt: skip


def _again(runs: Runs, score: str) -> list[tuple[FloatArray, FloatArray]]:
    """As many runs as there are of REGrad*; a score without random numbers is the same in those it was left out of."""
    pairs = runs.of(score)
    return pairs if len(pairs) == len(runs.known) else pairs[:1] * len(runs.known)


def interval_offsets(
    runs: Runs, rows: Mapping[str, str], against: str | None = None
) -> dict[tuple[str, str], tuple[float, float]]:
    """(row, metric) -> how far below and above its mean over runs a metric may lie, had other images been drawn.

    In percent. Every run and every row sees the same resamples of the images.

    Args:
        against: the row that the others are subtracted from.

    Source: the percentile bootstrap, :func:`regrad.metrics.paired.deviations`.
    """
    images = runs.images
    kinds = np.r_[np.zeros(images, np.int64), np.ones(images, np.int64)]
    counters = {
        row: [paired.counter(np.r_[known, unknown], kinds) for known, unknown in runs.of(score)]
        for row, score in rows.items()
    }

    def statistic(known: FloatArray, unknown: FloatArray) -> dict[str, FloatArray]:
        weights = np.concatenate([known, unknown], axis=1)
        values = {}
        for row, each in counters.items():
            counts = [paired.counts(weights, counter) for counter in each]
            for metric, function in (("AUROC", counted.auroc), ("AUPR", counted.aupr)):
                if counts:
                    values[f"{row}|{metric}"] = 100 * np.mean([function(*count) for count in counts], axis=0)
        if against is None:
            return values
        return {key: values[f"{against}|{key.split('|')[1]}"] - value for key, value in values.items()}

    spreads = paired.deviations(statistic, [images] * 2, [images] * 2, RESAMPLES)
    return {(key.split("|")[0], key.split("|")[1]): ends for key, ends in spreads.items() if ends is not None}


def separation(study: Study, table: str, pairs: Sequence[Experiment], setting: Setting = EVERY) -> list[Result]:
    """Every method on every pair of sets, and what REGrad* is ahead by: Table 1, and Appendix D's transformer."""
    return [
        result
        for experiment in pairs
        for runs in [gather(study, experiment, setting)]
        for result in (*results(table, experiment, methods.ALL, runs), *rival_differences(table, experiment, runs))
    ]


def ablation(study: Study, pairs: Sequence[Experiment], setting: Setting = EVERY) -> list[Result]:
    """Table 4, from the scores of Table 1."""
    return [
        result
        for experiment in pairs
        for result in results("ablation", experiment, methods.ABLATION, gather(study, experiment, setting))
    ]
