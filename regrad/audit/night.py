"""The numbers of one night against its baseline and the nights before: the dictionary that becomes ``audit.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from regrad.audit import drift, words
from regrad.audit.gates import METRICS, Gate
from regrad.labels.doubtful import Doubts, remove_list
from regrad.labels.estimate import estimate_accuracy
from regrad.runs import curves
from regrad.runs.scored import Ints, Run, codes, floats, integers
from regrad.runs.sift import sift
from regrad.runs.survey import Survey, align, p_values
from regrad.runs.threshold import Threshold, choose_threshold

AUDIT_VERSION = 1
DRIFTED = 0.01  # the adjusted p-value below which a slice has drifted
BASELINE, NIGHT = "baseline", "this night"


@dataclass(frozen=True)
class Baseline:
    """A run to compare with: its threshold, its grid, and how its images lie on it."""

    survey: Survey
    threshold: Threshold
    grid: drift.Grid
    slices: Slices

    @property
    def digest(self) -> str:
        """Stands for the grid and the threshold: counts of nights compare where it is equal."""
        return hashlib.sha256(self.grid.edges.tobytes() + repr(self.threshold.value).encode()).hexdigest()[:16]


class Slices:
    """Images per cell of a grid: of all rows of a run, by predicted class, and by source.

    Memory: (classes + sources) x cells counts, whatever the number of rows.

    Attributes:
        by_class: (classes, cells) images.
        flagged: (classes,) images above the threshold.
        by_source: source -> (cells,) images; empty where it was not asked for.
    """

    def __init__(self, run: Run, rule: Threshold, grid: drift.Grid, by_source: bool = True):
        classes, score = run.model["classes"], rule.score
        self.by_class = np.zeros((classes, grid.cells), np.int64)
        self.flagged = np.zeros(classes, np.int64)
        self.by_source: dict[str, Ints] = {}
        for rows in run.tables(["source", "prediction", score]):
            values, predictions = floats(rows[score]), integers(rows["prediction"])
            there = ~np.isnan(values) & (predictions >= 0) & (predictions < classes)
            cells = grid.place(values[there])
            self.by_class += _count(predictions[there], cells, self.by_class.shape)
            self.flagged += np.bincount(predictions[there][values[there] > rule.value], minlength=classes)
            if by_source:
                places, names = codes(rows["source"].filter(pa.array(there)))
                for name, counts in zip(names, _count(places, cells, (len(names), grid.cells)), strict=True):
                    self.by_source[name] = self.by_source.get(name, 0) + counts.astype(np.int32)

    @property
    def total(self) -> Ints:
        """(cells,) images of each cell."""
        return self.by_class.sum(0)


def calibrate(run: Run, score: str, threshold: float | str) -> Baseline:
    """Read the baseline ``run``: twice, as a stream.

    Raises:
        UsageError: it has no row, or the threshold does not fit it.
        RegradError: the storage refused or failed.
    """
    survey = Survey(run, [score])
    values, (images,), _ = align([survey], score)
    grid = drift.Grid(values, images)
    chosen = choose_threshold(threshold, [score], score, survey)
    return Baseline(survey, chosen, grid, Slices(run, chosen, grid, by_source=False))


def counted(
    run: Run | None,
    baseline: Baseline,
    before: Sequence[dict[str, Any]],
    quarantine: Mapping[str, int],
    rows_quarantined: int,
    top: int,
    flag: Callable[[pa.Table], None],
    output: str,
) -> dict[str, Any]:
    """What ``audit.json`` holds of a night that does not depend on the gates.

    Args:
        run: the night's rows; None where no image was scored.
        before: ``audit.json`` of the nights compared with, oldest first.
        quarantine: why rows could not be scored.
        top: how many pictures to list.
        flag: takes the flagged rows, see :func:`regrad.runs.sift.sift`.
        output: where the list of doubtful labels goes, where there are labels.

    Raises:
        RegradError: the storage refused or failed.
    """
    rule = baseline.threshold
    alike = [audit for audit in before if audit["distribution"]["grid"] == baseline.digest and audit["images"]]
    base = _without_images(baseline, quarantine, rows_quarantined)
    base["compared"] = {
        "nights": [audit["night"] for audit in alike],
        "left_out": [audit["night"] for audit in before if audit["images"] and audit not in alike],
    }
    if run is None:
        remove_list(output)
        return base
    survey, slices = Survey(run, [rule.score]), Slices(run, rule, baseline.grid)
    unlike = p_values(baseline.survey, rule.score)
    doubts = Doubts(run, [baseline.survey, survey])
    sifted = sift(run, rule, top, False, flag, unlike, doubts if survey.labelled else None)
    doubts.write(output)
    estimate = estimate_accuracy(baseline.survey, survey)
    rates = sifted.rates
    nights = _Nights(alike)
    values, (known, new), _ = align([baseline.survey, survey], rule.score)
    statistic = drift.ks(new, known)
    predicted, expected = slices.by_class.sum(1), baseline.slices.by_class.sum(1)
    total = slices.total
    sets, covered = survey.of_sets().values()
    _test_slices(rates, slices, baseline, nights)
    metrics = {
        "images": survey.images,
        "flagged": rates["flagged"],
        "flagged_share": rates["share"],
        "flagged_share_change": None if nights.share is None else rates["share"] - nights.share,
        "quarantined": rows_quarantined / (survey.images + rows_quarantined),
        "ks": statistic,
        "ks_p": drift.ks_p(statistic, int(new.sum()), int(known.sum())),
        "psi": drift.psi(*drift.tenths(total, baseline.slices.total)),
        "ks_nights": None if nights.counts is None else drift.ks(total, nights.counts),
        "psi_nights": None if nights.counts is None else drift.psi(*drift.tenths(total, nights.counts)),
        "prediction_psi": drift.psi(predicted, expected),
        "prediction_p": drift.same_shares_p(predicted, expected),
        "drifted_classes": sum(entry["drifted"] for entry in rates["classes"]),
        "drifted_sources": sum(entry["drifted"] for entry in rates["sources"]),
        "coverage": covered["share"] if covered else None,
        "set_size": sets["mean_size"] if sets else None,
        "doubtful_labels": doubts.share,
        "accuracy_estimate": estimate["accuracy"] if estimate else None,
        "accuracy": survey.numbers()["accuracy"],
    }
    base["metrics"] |= metrics
    return base | {
        "images": survey.images,
        "chance_psi": drift.chance_psi(survey.images, baseline.survey.images, drift.PSI_CELLS),
        "rates": rates,
        "predictions": {"baseline": expected.tolist(), "night": predicted.tolist()},
        "doubtful": doubts.numbers(),
        "accuracy_estimate": estimate,
        "histogram": curves.histogram(values, {BASELINE: known, NIGHT: new}),
        "distribution": {"grid": baseline.digest, "counts": total.tolist()},
        "pictures": sifted.sheets["uncertain"],
    }


def with_verdicts(audit: dict[str, Any], gates: Sequence[Gate]) -> dict[str, Any]:
    """``audit`` with the verdicts of its gates, and what it says in words."""
    verdicts = [
        {
            "gate": gate.text,
            "metric": gate.metric,
            "operator": gate.operator,
            "bound": gate.bound,
            "value": audit["metrics"][gate.metric],
            "verdict": gate.verdict(audit["metrics"]),
        }
        for gate in gates
    ]
    audit = audit | {"gates": verdicts}
    return {"headline": words.sentences(audit)} | audit


def _without_images(baseline: Baseline, quarantine: Mapping[str, int], rows_quarantined: int) -> dict[str, Any]:
    rule, survey, slices = baseline.threshold, baseline.survey, baseline.slices
    return {
        "audit_version": AUDIT_VERSION,
        "images": 0,
        "score": rule.score,
        "threshold": {"value": rule.value, "quantile": rule.quantile, "reference": rule.reference},
        "baseline": {
            "uri": survey.run.output,
            "images": survey.images,
            "finished": survey.run.info.get("finished"),
            "flagged_share": float(slices.flagged.sum() / max(slices.by_class.sum(), 1)),
        },
        "metrics": dict.fromkeys(METRICS)
        | {"images": 0, "flagged": 0, "quarantined_rows": rows_quarantined}
        | {"quarantined": 1.0 if rows_quarantined else None},
        "drifted_below": DRIFTED,
        "chance_psi": None,
        "rates": None,
        "predictions": None,
        "doubtful": None,
        "accuracy_estimate": None,
        "histogram": None,
        "distribution": {"grid": baseline.digest, "counts": None},
        "quarantine": dict(quarantine),
        "map": None,
        "pictures": [],
        "class_names": survey.run.model["class_names"],
    }


class _Nights:
    """The nights compared with, taken together."""

    def __init__(self, audits: Sequence[dict[str, Any]]):
        rates = [audit["rates"] for audit in audits]
        images = sum(night_rates["images"] for night_rates in rates)
        self.share = sum(night_rates["flagged"] for night_rates in rates) / images if images else None
        self.counts: Ints | None = (
            np.sum([audit["distribution"]["counts"] for audit in audits], axis=0) if audits else None
        )
        self._groups: dict[tuple[str, Any], list[int]] = {}
        for night_rates in rates:
            for key, entries in (("class", night_rates["classes"]), ("source", night_rates["sources"])):
                for entry in entries:
                    sums = self._groups.setdefault((key, entry[key]), [0, 0])
                    sums[0] += entry["flagged"]
                    sums[1] += entry["images"]

    def share_of(self, key: str, name: Any) -> float | None:
        """The share flagged of a class or source; None where it had no image."""
        flagged, images = self._groups.get((key, name), (0, 0))
        return flagged / images if images else None


def _test_slices(rates: dict[str, Any], slices: Slices, baseline: Baseline, nights: _Nights) -> None:
    """Add to each class and source: its share before, D and p against the baseline, and whether it has drifted.

    A class is held against the baseline's images of that class, a source against all of them. All slices are adjusted
    for together.
    """
    known = baseline.slices
    for entry in rates["classes"]:
        place = entry["class"]
        images = int(known.by_class[place].sum())
        entry["baseline_share"] = int(known.flagged[place]) / images if images else None
        entry["nights_share"] = nights.share_of("class", place)
        entry["ks"], entry["p"] = drift.slice_test(slices.by_class[place], known.by_class[place])
    nothing = np.zeros_like(known.total)
    for entry in rates["sources"]:
        entry["nights_share"] = nights.share_of("source", entry["source"])
        entry["ks"], entry["p"] = drift.slice_test(slices.by_source.get(entry["source"], nothing), known.total)
    entries = [*rates["classes"], *rates["sources"]]
    for entry, p in zip(entries, drift.adjusted([entry["p"] for entry in entries]), strict=True):
        entry["p_adjusted"] = p
        entry["drifted"] = p is not None and p < DRIFTED


def _count(groups: Ints, cells: Ints, shape: tuple[int, int]) -> Ints:
    """(groups, cells) how many of each."""
    return np.bincount(groups * shape[1] + cells, minlength=shape[0] * shape[1]).reshape(shape)
