"""Which score for a network, told without unknown images: by proxies made of known ones, by errors, or by both.

Every rule takes, of the scores without training data, the one with the largest AUROC of what it goes by; what is
measured is that score's AUROC on pairs of sets, of which the rule has seen nothing but the known set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse

from regrad.experiments.material import methods
from regrad.experiments.material.experiments import Experiment
from regrad.experiments.material.models import MODELS
from regrad.experiments.material.proxies import KINDS
from regrad.experiments.measured import in_use
from regrad.experiments.measured.calibration import right
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Columns, Setting, Study, scored
from regrad.experiments.measured.separation import RESAMPLES
from regrad.metrics import auroc, counted, paired
from regrad.metrics.arrays import FloatArray

TABLE, METRIC, BEHIND = "probes", "AUROC", "behind the best"
SETTING = Setting("probes", tuple(methods.IN_USE.values()), in_use.SETTING.flags)
IMAGES = 300  # of the known set and of each kind of proxy
NEAR = 1.0  # points behind the best score, and still a good choice
CANDIDATES = tuple(methods.IN_USE)
ERRORS, ELSEWHERE = "Errors", "The best on all other networks"
#: Rule -> groups of what it goes by: kinds of proxies, and errors. The mean over groups of the means in each decides.
RULES: dict[str, tuple[tuple[str, ...], ...]] = {
    **{f"Proxies: {kind}": ((kind,),) for kind in KINDS},
    "Mean of the proxies": (tuple(KINDS),),
    ERRORS: ((ERRORS,),),
    "Proxies and errors": (tuple(KINDS), (ERRORS,)),
}
FIXED = {f"Always {row}": place for place, row in enumerate(CANDIDATES)}
ROWS = (*RULES, ELSEWHERE, *FIXED)

Truth = Mapping[Experiment, FloatArray]  # pair -> (candidates,) AUROC in percent


@dataclass(frozen=True)
class Evidence:
    """One network of one training seed: what rules may see, and what they are judged by.

    Attributes:
        seen: kind of proxy, or errors -> what counts the AUROC of each candidate from weights of images.
        images: of the known set and of each kind of proxy, and of those with labels.
        truth: on each pair of the network.
    """

    seen: Mapping[str, Sequence[scipy.sparse.csr_array]]
    images: tuple[int, int]
    truth: Truth


def probes(
    study: Study,
    pairs: Sequence[Experiment],
    setting: Setting = SETTING,
    truth: Setting = in_use.SETTING,
    beside: Sequence[Experiment] = (),
) -> list[Result]:
    """AUROC of the score that each rule chooses, how far it is behind the best, and the sums over all pairs.

    Args:
        beside: pairs of networks that no proxies are made for: only what is best on other networks goes by them too.
    """
    by_model = {pair.model: [each for each in pairs if each.model == pair.model] for pair in pairs}
    networks = {model: _alike(_gather(study, own, setting, truth)) for model, own in by_model.items()}
    truths = {pair: values for runs in networks.values() for pair, values in _mean_truth(runs).items()}
    truths |= {pair: values for pair in beside for values in _truths(study, [pair], 0, truth).values()}
    cells = [
        cell for model, own in by_model.items() for cell in _network(own, networks[model], _elsewhere(model, truths))
    ]
    return [*cells, *_summary(cells)]


def _gather(study: Study, pairs: Sequence[Experiment], setting: Setting, truth: Setting) -> Iterator[Evidence]:
    """The runs of one network of which everything is there."""
    model, known = pairs[0].model, pairs[0].known
    few = replace(study, images=min(study.images, IMAGES))
    sets = [known, *(f"{known}-{kind}" for kind in KINDS)]
    for seed in range(study.seeds if MODELS[model].recipe else 1):
        proxies = scored(few, model, seed, sets, setting)
        judged = _truths(study, pairs, seed, truth)
        labelled = scored(study, model, seed, [known], truth).get(known)
        if judged and labelled is not None and len(proxies) == len(sets):
            yield _evidence([proxies[name] for name in sets], labelled, judged)


def _truths(study: Study, pairs: Sequence[Experiment], seed: int, setting: Setting) -> Truth:
    """Of those ``pairs`` of one network of which both sets are there."""
    real = scored(study, pairs[0].model, seed, [pairs[0].known, *(pair.unknown for pair in pairs)], setting)
    both = [pair for pair in pairs if {pair.known, pair.unknown} <= real.keys()]
    return {pair: _truth(real[pair.known], real[pair.unknown]) for pair in both}


def _alike(runs: Iterable[Evidence]) -> list[Evidence]:
    """The runs of most images: one that was stopped has fewer."""
    held = list(runs)
    most = max((run.images for run in held), default=None)
    return [run for run in held if run.images == most]


def _truth(known: Columns, unknown: Columns) -> FloatArray:
    images = min(len(columns["prediction"]) for columns in (known, unknown))
    return np.array([100 * auroc(known[s][:images], unknown[s][:images]) for s in methods.IN_USE.values()])


def _evidence(sets: Sequence[Columns], labelled: Columns, truth: Truth) -> Evidence:
    """From equally many images of the known set and of each kind of proxy, and from labelled images."""
    images = min(len(columns["prediction"]) for columns in sets)
    kinds = np.repeat([0, 1], images)
    seen = {
        kind: [paired.counter(np.r_[sets[0][s][:images], of_kind[s][:images]], kinds) for s in methods.IN_USE.values()]
        for kind, of_kind in zip(KINDS, sets[1:], strict=True)
    }
    wrong = 1 - right(labelled).astype(np.int64)
    seen[ERRORS] = [paired.counter(labelled[score], wrong) for score in methods.IN_USE.values()]
    return Evidence(seen, (images, len(wrong)), truth)


def _mean_truth(runs: Sequence[Evidence]) -> Truth:
    return {pair: np.mean([run.truth[pair] for run in runs], axis=0) for pair in (runs[0].truth if runs else ())}


def _elsewhere(model: str, truths: Truth) -> int | None:
    """The candidate with the largest mean on the pairs of other networks; None where there are none."""
    others = [values for pair, values in truths.items() if pair.model != model]
    return int(np.mean(others, axis=0).argmax()) if others else None


def chosen_places(run: Evidence, *weights: FloatArray) -> dict[str, FloatArray]:
    """Rule -> (b,) the place of the candidate that it chooses, NaN where nothing tells one from another.

    Args:
        weights: (b, m) of the images of the known set, of each kind of proxy, and of the labelled images.
    """
    known, *of_kinds, labelled = weights
    drawn = {kind: np.concatenate([known, own], axis=1) for kind, own in zip(KINDS, of_kinds, strict=True)}
    drawn[ERRORS] = labelled
    seen = {
        what: np.stack([counted.auroc(*paired.counts(drawn[what], counter)) for counter in counters])
        for what, counters in run.seen.items()
    }
    chosen = {}
    for rule, groups in RULES.items():
        value = np.mean([np.mean([seen[what] for what in group], axis=0) for group in groups], axis=0)
        known_value = np.isfinite(value).all(axis=0)
        chosen[rule] = np.where(known_value, np.nan_to_num(value).argmax(axis=0), np.nan)
    return chosen


def _chosen(runs: Sequence[Evidence]) -> tuple[dict[str, float], dict[str, tuple[float, float] | None]]:
    """AUROC of what each rule chooses on each pair, mean over runs, and how far it may be off: by :func:`_key`.

    The images that a rule sees are drawn again; those that its choice is judged by stay.
    """
    images, labelled = runs[0].images
    sizes = [images] * (1 + len(KINDS)) + [labelled]

    def statistic(*weights: FloatArray) -> dict[str, FloatArray]:
        values: dict[str, list[FloatArray]] = {}
        for run in runs:
            for rule, place in chosen_places(run, *weights).items():
                for pair, truth in run.truth.items():
                    reached = np.where(np.isnan(place), np.nan, truth[np.nan_to_num(place).astype(np.int64)])
                    values.setdefault(_key(rule, pair), []).append(reached)
        return {key: np.mean(of_runs, axis=0) for key, of_runs in values.items()}

    whole = statistic(*(np.ones((1, size)) for size in sizes))
    offsets = paired.deviations(statistic, sizes, sizes, RESAMPLES)
    return {key: float(value[0]) for key, value in whole.items()}, offsets


def _key(rule: str, pair: Experiment) -> str:
    return f"{rule}|{pair.unknown}"


def _network(pairs: Sequence[Experiment], runs: Sequence[Evidence], elsewhere: int | None) -> Iterator[Result]:
    """The cells of one network, on each of its pairs."""
    truth = _mean_truth(runs)
    chosen, offsets = _chosen(runs) if runs else ({}, {})
    always = FIXED | ({ELSEWHERE: elsewhere} if elsewhere is not None else {})
    for pair in pairs:
        common: dict[str, Any] = {"table": TABLE, "group": pair.group, "experiment": pair.name}
        if runs:
            common |= {"runs": len(runs), "runs_of": MODELS[pair.model].seeds, "images": runs[0].images[0]}
        values = truth.get(pair, np.full(len(CANDIDATES), math.nan))
        for row in ROWS:
            mean = float(values[always[row]]) if row in always else chosen.get(_key(row, pair), math.nan)
            low, high = (_plain(mean + end) for end in offsets.get(_key(row, pair)) or (math.nan, math.nan))
            yield Result(**common, row=row, metric=METRIC, mean=_plain(mean), low=low, high=high)
            yield Result(**common, row=row, metric=BEHIND, mean=_plain(float(values.max()) - mean))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _summary(cells: Sequence[Result]) -> Iterator[Result]:
    """Of each row the pairs on which it is near the best, and how far it is behind: on all, and on some networks.

    The others are those on which no form of a score was chosen. A row that lacks a number has none.
    """
    measured = [cell for cell in cells if cell.metric == BEHIND and cell.mean is not None]
    chosen_on = {MODELS[model].title for model in in_use.CHOSEN_ON}
    for title, of in (("all", measured), ("others", [cell for cell in measured if cell.group not in chosen_on])):
        pairs = len({(cell.group, cell.experiment) for cell in of})
        images = min((cell.images for cell in of), default=0)
        for row in ROWS:
            lost = np.array([cell.mean for cell in of if cell.row == row])
            whole = 0 < len(lost) == pairs
            columns = {
                "pairs within one point, %": 100 * (lost <= NEAR).mean() if whole else None,
                "mean behind the best": lost.mean() if whole else None,
                "most behind the best": lost.max() if whole else None,
            }
            for column, value in columns.items():
                mean, name = None if value is None else float(value), f"{column}, {title}"
                yield Result(TABLE, in_use.OF_ALL, name, row, METRIC, mean, runs=pairs, runs_of="pairs", images=images)
