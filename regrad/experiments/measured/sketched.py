"""How far an estimate by random directions may be trusted: the sketch beside the exact engine on the same images.

Of the images of both sets, with s the estimate of a score, e the exact value and se the standard error that the
estimate tells of itself:

    error = |s - e| / e,      within m = share of images with |s - e| <= m se.

Every image meets the same directions, so the errors of a run go together; runs differ by the seed of the directions.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.stats
import torch

from regrad import Scorer
from regrad.experiments.material import image_sets, models
from regrad.experiments.material.experiments import IMAGENET, Experiment, against
from regrad.experiments.measured import runtime
from regrad.experiments.measured.results import Result, mean_and_deviation
from regrad.experiments.measured.scoring import Columns, Setting, Study, scored
from regrad.metrics import auroc
from regrad.metrics.arrays import FloatArray
from regrad.reading.memory import load_images
from regrad.settings.columns import STANDARD_ERROR

TABLE = "sketch"
EXACT = "exact"
#: Row -> settings of the scorer.
ENGINES: dict[str, dict[str, Any]] = {EXACT: {"engine": "exact"}} | {
    f"{number} directions": {"engine": "sketch", "directions": number} for number in (4, 8, 16, 32, 64)
}
PAIRS = (*IMAGENET, *against("densenet100-cifar100", "cifar100", "tinyimagenet-not-cifar100"))
SCORE = "regrad_layers"
BATCH = 4  # images whose cost is measured


@dataclass(frozen=True)
class Compared:
    """A score of the same images by both engines, all (n,): the known set first, and as many of the other."""

    exact: FloatArray
    estimate: FloatArray
    standard_error: FloatArray

    @property
    def errors(self) -> FloatArray:
        """In percent of the exact value, (n,)."""
        return 100 * np.abs(self.estimate - self.exact) / self.exact

    def separation(self) -> float:
        """AUROC of the estimate in percent."""
        known, unknown = np.split(self.estimate, 2)
        return 100 * auroc(known, unknown)

    def rank_correlation(self) -> float:
        """Spearman's."""
        return float(scipy.stats.spearmanr(self.exact, self.estimate).statistic)

    def within(self, multiple: float) -> float:
        """Percent of the images that lie at most so many of their standard errors from the exact value."""
        return 100 * float(np.mean(np.abs(self.estimate - self.exact) <= multiple * self.standard_error))


AUROC, COST = "AUROC", runtime.METRIC
#: Column -> what it is of one run.
MEASURES: dict[str, Callable[[Compared], float]] = {
    AUROC: Compared.separation,
    "rank correlation": Compared.rank_correlation,
    "error, median %": lambda of_run: float(np.median(of_run.errors)),
    "error, largest %": lambda of_run: float(np.max(of_run.errors)),
    "standard error, median %": lambda of_run: float(np.median(100 * of_run.standard_error / of_run.exact)),
    "within 1, %": partial(Compared.within, multiple=1),
    "within 2, %": partial(Compared.within, multiple=2),
}
#: Column -> its digits.
METRICS = dict(zip((*MEASURES, COST), (2, 4, 2, 1, 2, 0, 0, 1), strict=True))


def sketched(study: Study, pairs: Sequence[Experiment] = PAIRS) -> list[Result]:
    """REGrad by the exact engine and by each number of directions, and what either costs.

    Args:
        pairs: of networks that are the same for all seeds, which are those of the directions.
    """
    return [cell for pair in pairs for cell in (*_precision(study, pair), *_costs(study, pair))]


def setting(row: str) -> Setting:
    """Of one of :data:`ENGINES`; without noise, which costs as many times as there are copies."""
    engine = {key: str(value) for key, value in ENGINES[row].items()}
    return Setting(row.replace(" ", "-"), (SCORE,), {"samples": "0", "standard-errors": "", **engine})


def _precision(study: Study, pair: Experiment) -> Iterator[Result]:
    exact = _runs(study, pair, EXACT, 1)
    runs = {row: _runs(study, pair, row, study.seeds) if exact else [] for row in ENGINES if row != EXACT}
    images = min((len(columns["label"]) for run in sum(runs.values(), exact) for columns in run), default=0)
    rows = {row: [_compared(exact[0], run, images) for run in of_row] for row, of_row in runs.items()}
    # The exact engine draws nothing: what it gives is that of every seed.
    itself = [_compared(exact[0], exact[0], images)] * study.seeds if exact else []
    cells = [(EXACT, AUROC, itself), *((row, name, of_row) for row, of_row in rows.items() for name in MEASURES)]
    for row, name, of_row in cells:
        mean, deviation = mean_and_deviation([MEASURES[name](each) for each in of_row])
        place = (TABLE, _group(pair), name, row, name)
        yield Result(*place, mean, deviation, runs=len(of_row), runs_of="direction", images=images)


def _group(pair: Experiment) -> str:
    return f"{pair.group}, {pair.name}"


def _runs(study: Study, pair: Experiment, row: str, seeds: int) -> list[tuple[Columns, Columns]]:
    """The known and the unknown set of each seed that has both."""
    sets = [pair.known, pair.unknown]
    every = [scored(study, pair.model, seed, sets, setting(row)) for seed in range(seeds)]
    return [(run[pair.known], run[pair.unknown]) for run in every if run.keys() >= {*sets}]


def _compared(exact: tuple[Columns, Columns], run: tuple[Columns, Columns], images: int) -> Compared:
    """The first ``images`` of both sets."""

    def both(sets: tuple[Columns, Columns], column: str) -> FloatArray:
        return np.concatenate([columns[column][:images] for columns in sets])

    return Compared(both(exact, SCORE), both(run, SCORE), both(run, f"{SCORE}{STANDARD_ERROR}"))


def _costs(study: Study, pair: Experiment) -> list[Result]:
    """Of images of the known set, over one plain forward pass of them."""
    there = study.packs.has(image_sets.IMAGE_SETS[pair.known].pack)
    if not study.compute or not there:  # a time cannot be read from scores
        return [Result(TABLE, _group(pair), COST, row, COST) for row in ENGINES]
    of_rounds = runtime.ratios(pair.group, *_entrants(study, pair))
    common: dict[str, Any] = {"metric": COST, "runs_of": "rounds", "images": BATCH}
    return [
        Result(TABLE, _group(pair), COST, row, mean=statistics.median(values), runs=len(values), **common)
        for row, values in of_rounds.items()
    ]


def _entrants(study: Study, pair: Experiment) -> tuple[dict[str, Callable[[], object]], Callable[[], object]]:
    """What is timed, by row, and the plain forward pass."""
    model = models.MODELS[pair.model]
    weights = models.weights(pair.model, 0, study.packs, study.place("weights"))
    classifier = models.Classifier.load(model.spec, weights=weights)
    shards = image_sets.shards(pair.known, study.packs, study.place("images"), BATCH)
    images, _ = load_images(shards, classifier, BATCH)
    ids = [str(row) for row in range(len(images))]
    inputs, network = classifier.normalize(images), classifier.network.eval()

    @torch.no_grad()
    def plain() -> object:
        return network(inputs)

    scorers = {row: Scorer(classifier, [SCORE], samples=0, **engine) for row, engine in ENGINES.items()}
    return {row: partial(scorer, images, ids) for row, scorer in scorers.items()}, plain
