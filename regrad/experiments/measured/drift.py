"""How often drift of embeddings is found, of shifts of a known size, and how often where there is none.

Of n draws of a baseline and a night, with p the p-value of a test:

    found at a level = share of draws with p <= level,

beside what an audit tells without embeddings, and what another library calls drift on the same draws where it was asked
(docs/peers/evidently_drift.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from regrad.cli import say
from regrad.experiments.material.image_sets import IMAGE_SETS
from regrad.experiments.material.models import MODELS
from regrad.experiments.material.shifts import (
    NIGHTS,
    SHIFTS,
    Nights,
    Shift,
    draw_shifted,
    draws_file,
    keep_draws,
    kept_draws,
)
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Setting, Study, scored
from regrad.experiments.power import LEVELS, TESTS, Drawable, hold_embeddings, tests_of
from regrad.metrics.arrays import FloatArray
from regrad.metrics.wilson import share_interval
from regrad.runs.scored import load_run

TABLE = "drift"
MODEL = "resnet20-cifar10"
SCORE = "max_probability"
PERMUTATIONS = 199
CLASSIFIER, EITHER = TESTS[0], "either"
ROWS = (*TESTS[:2], EITHER, *TESTS[2:])
AUROC = "AUROC"
#: Metric -> its level.
FOUND = {f"at {level:g}": level for level in LEVELS}
OURS, OTHER = "regrad", "evidently"
EVIDENTLY = "Evidently: "
#: What docs/peers/evidently_drift.py asks it for.
PEERS = (
    "model, AUROC > 0.55",
    "model, bootstrap",
    "MMD > 0.015",
    "MMD, bootstrap",
    "MMD, bootstrap at 0.95",
    "ratio",
    "distance",
    "distance, bootstrap",
)
CALLED = next(iter(FOUND))  # the metric of what another library calls drift, at whatever level it does
_KEPT_EVERY = 5  # draws that are lost at most when a run is stopped
Hold = Callable[[str, int], Drawable | None]


def found_drift(study: Study, nights: Sequence[Nights] = NIGHTS, shifts: Mapping[str, Shift] = SHIFTS) -> list[Result]:
    """How often each test finds each shift; of nights of more than ``study.images`` what is kept already.

    The network is a published one and without noise: seeds are those of the draws, which ``nights`` counts.
    """
    hold = functools.cache(functools.partial(_hold, study))
    return [cell for each in nights for name in shifts for cell in _cells(study, hold, each, name, shifts[name])]


def keeping_embeddings(image_set: str) -> Setting:
    """How the images of a set are scored: an output for each, which ``regrad.experiments.power`` can read."""
    return Setting(f"seen-{image_set}", (SCORE,), {"samples": "0", "embeddings": ""})


def _cells(study: Study, hold: Hold, nights: Nights, name: str, shift: Shift) -> Iterator[Result]:
    told = _draws(study, hold, nights, name, shift)
    common: dict[str, Any] = {
        "table": TABLE,
        "group": f"{MODELS[MODEL].title}, {nights.images:,} of {IMAGE_SETS[nights.known].title}",
        "experiment": shift.title,
        "runs": len(told),
        "runs_of": "draws",
        "images": nights.images if len(told) else 0,
    }
    ps = dict(zip(TESTS, told.T, strict=False))  # the last column is no p-value
    ps[EITHER] = 2 * np.minimum(*(ps[test] for test in TESTS[:2]))
    for row in ROWS:
        for metric, level in FOUND.items():
            yield Result(row=row, metric=metric, **common, **_share(ps[row] <= level))
    yield Result(row=CLASSIFIER, metric=AUROC, **common, mean=float(told[:, -1].mean()) if len(told) else None)
    of_others = kept_draws(draws_file(study.output, nights.images, name, OTHER), nights.about)
    for row in PEERS:
        called = np.array([draw[row] for draw in of_others if row in draw], bool)
        if called.size:
            asked = common | {"runs": called.size, "images": nights.images}
            yield Result(row=f"{EVIDENTLY}{row}", metric=CALLED, **asked, **_share(called))


def _share(found: npt.NDArray[np.bool_]) -> dict[str, Any]:
    if not found.size:
        return {}
    low, high = share_interval(int(found.sum()), found.size)
    return {"mean": 100 * float(found.mean()), "low": 100 * low, "high": 100 * high}


def _draws(study: Study, hold: Hold, nights: Nights, name: str, shift: Shift) -> FloatArray:
    """(draws, len(TESTS) + 1) of :func:`regrad.experiments.power.tests_of`, drawn now where they are missing."""
    file = draws_file(study.output, nights.images, name, OURS)
    about = {**nights.about, "permutations": PERMUTATIONS, "score": SCORE}
    told, wanted = kept_draws(file, about), nights.draws(name)
    if study.compute and nights.images <= study.images and len(told) < wanted:
        known, image_set = hold(nights.known, nights.held), shift.image_set(nights.known)
        others = None if image_set is None else hold(image_set, nights.held)
        if known is not None and (image_set is None or others is not None):
            say(f"{wanted - len(told)} draws of {nights.images} images, {shift.title}")
            for number in range(len(told), wanted):
                drawn = draw_shifted(known, others, nights.images, shift, number)
                told.append(tests_of(*drawn, PERMUTATIONS, number))
                if len(told) % _KEPT_EVERY == 0 or len(told) == wanted:
                    keep_draws(file, about, told)
    return np.array(told[:wanted], np.float64).reshape(-1, len(TESTS) + 1)


def _hold(study: Study, image_set: str, images: int) -> Drawable | None:
    """The embeddings of a set, scored now where they are missing; None where its images are not to be had."""
    how = keeping_embeddings(image_set)
    if not scored(replace(study, images=images), MODEL, 0, [image_set], how):
        return None
    return hold_embeddings(load_run(image_set, study.place("scores", MODEL, "seed-0", how.name)), SCORE)
