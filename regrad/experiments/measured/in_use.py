"""The scores that people use, side by side on every pair of sets, and how far each is behind the best of them.

One run for each network, without noise: what is compared are functions of the clean image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from regrad.experiments.material import methods
from regrad.experiments.material.experiments import Experiment
from regrad.experiments.material.models import MODELS
from regrad.experiments.measured import calibration, separation
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Setting, Study

SETTING = Setting(
    "in-use",
    (*methods.IN_USE.values(), *methods.WITH_DATA.values()),
    {"samples": "0", "score-module": "regrad.experiments.measured.bare", "fit-limit": "5000"},
)
#: The networks on which the form of ``displacement`` was chosen; it was not looked at on others before.
CHOSEN_ON = ("mnist-cnn", "fmnist-cnn", "resnet20-cifar10")
OF_ALL = "All networks"
ROWS = methods.IN_USE | methods.WITH_DATA


def in_use(study: Study, pairs: Sequence[Experiment], setting: Setting = SETTING) -> list[Result]:
    """AUROC and AUPR of every score on every pair."""
    cells: list[Result] = []
    for experiment in pairs:
        seeds = None if MODELS[experiment.model].recipe else 1  # nothing draws random numbers but the training
        runs = separation.gather(study, experiment, setting, seeds)
        cells += separation.results("scores", experiment, ROWS, runs)
    return cells


def errors_in_use(study: Study, pairs: Sequence[Experiment], setting: Setting = SETTING) -> list[Result]:
    """rAULC of every score on the known set of every network."""
    return calibration.by_network(study, pairs, setting, "scores-errors", ROWS)


def over_networks(cells: Sequence[Result], metric: str) -> Iterator[Result]:
    """Means of one metric over networks, and how far below the best score a row is.

    Networks that a form was chosen on stand apart. The best is that of the scores without training data. A row that
    lacks a number has no mean.
    """
    example = next(cell for cell in cells if cell.metric == metric)
    known = {MODELS[name].title for name in CHOSEN_ON}
    for title, chosen in (("chosen on", True), ("others", False)):
        of = [cell for cell in cells if (cell.group in known) == chosen and cell.metric == metric]
        values = {((cell.group, cell.experiment), cell.row): cell.mean for cell in of if cell.mean is not None}
        places = list(dict.fromkeys(pair for pair, _ in values))
        best = {pair: max(values[pair, row] for row in methods.IN_USE if (pair, row) in values) for pair in places}
        images = min((cell.images for cell in of if cell.mean is not None), default=0)
        for row in ROWS:
            own = {pair: values[pair, row] for pair in places if (pair, row) in values}
            whole = bool(own) and len(own) == len(places)
            columns = {
                "mean": sum(own.values()) / len(own) if whole else None,
                "most behind the best": max(best[pair] - value for pair, value in own.items()) if whole else None,
            }
            for column, value in columns.items():
                name = f"{column}, {title}"
                yield Result(
                    example.table,
                    OF_ALL,
                    name,
                    row,
                    example.metric,
                    value,
                    runs=len(own),
                    runs_of="pairs",
                    images=images,
                )
