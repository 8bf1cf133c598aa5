"""Appendix D's runtime: what each method costs an image, in plain forward passes of the same batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from regrad import Scorer
from regrad.experiments.material import methods, models
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Study, say
from regrad.reading.memory import load_labelled
from regrad.scores.draws import posterior

Entrant = TypeVar("Entrant")  # what an entrant is called
METRIC = "forward passes"
BATCH = 16
ROUNDS = 5
NETWORKS = ("mnist-cnn", "resnet20-cifar10")
ROWS = {**methods.PAPER, "REGrad + layer-selective": "regrad_layers", "REGrad": "regrad_plain"}


def runtime(study: Study, networks: Sequence[str] = NETWORKS) -> list[Result]:
    """Median over interleaved rounds of a method's time over that of one plain forward pass of the same images.

    Every round runs everything once, so that ratios hold on a machine that others use too. Each method runs alone;
    together, scores share what they have in common.
    """
    return [result for name in networks for result in _results(study, name)]


def _results(study: Study, name: str) -> Iterator[Result]:
    title = models.MODELS[name].title
    if not study.compute:  # a time cannot be read from scores
        yield from (Result("runtime", title, title, row, METRIC) for row in ROWS)
        return
    for row, values in ratios(title, *_entrants(study, name)).items():
        yield Result(
            table="runtime",
            group=title,
            experiment=title,
            row=row,
            metric=METRIC,
            mean=statistics.median(values),
            low=min(values),
            high=max(values),
            runs=ROUNDS,
            runs_of="rounds",
            images=BATCH,
        )


def ratios(
    title: str, entrants: Mapping[Entrant, Callable[[], object]], plain: Callable[[], object]
) -> dict[Entrant, list[float]]:
    """Seconds of each entrant over those of ``plain``, one number a round; each round runs everything."""
    for run in (plain, *entrants.values()):
        run()  # warms up
    of_rounds: dict[Entrant, list[float]] = {row: [] for row in entrants}
    for number in range(ROUNDS):
        say(f"runtime of {title}: round {number + 1} of {ROUNDS}")
        unit = min(_seconds(plain) for _ in range(3))
        for row, run in entrants.items():
            of_rounds[row].append(_seconds(run) / unit)
    return of_rounds


def _entrants(study: Study, name: str) -> tuple[dict[str, Callable[[], object]], Callable[[], object]]:
    """What is timed, by row, and the plain forward pass."""
    model = models.MODELS[name]
    weights = models.weights(name, 0, study.packs, study.place("weights"))
    classifier = models.Classifier.load(model.spec, weights=weights)
    training = study.packs.find(model.fit_pack)
    known, labels = load_labelled([training], classifier, 500)
    images, ids = known[:BATCH], [str(row) for row in range(BATCH)]
    state = posterior.fit(classifier.network, classifier.normalize(known), labels)
    inputs, network = classifier.normalize(images), classifier.network.eval()

    @torch.no_grad()
    def plain() -> object:
        return network(inputs)

    def timed(score: str) -> Callable[[], object]:
        scorer = Scorer(classifier, [score], posterior=state if score == "laplace" else None)
        return lambda: scorer(images, ids)

    return {row: timed(score) for row, score in ROWS.items()}, plain


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
