"""Intervals of differences against the plain loop over resampled rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from regrad.metrics import counted, paired


def test_intervals_are_those_of_the_plain_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(300) < 0.3
    a = rng.normal(size=300) + wrong
    b = a + rng.normal(0, 0.5, 300)
    counters = [paired.counter(values, wrong.astype(int)) for values in (a, b)]

    def statistic(weights: Any) -> dict[str, Any]:
        first, second = (counted.auroc(*paired.counts(weights, counter)) for counter in counters)
        return {"auroc": second - first, "mean": weights @ (b - a) / weights.sum(1)}

    found = paired.deviations(statistic, [300], [300])
    plain: dict[str, list[float]] = {"auroc": [], "mean": []}
    for _ in range(1000):
        rows = rng.integers(300, size=300)
        plain["auroc"].append(roc_auc_score(wrong[rows], b[rows]) - roc_auc_score(wrong[rows], a[rows]))
        plain["mean"].append((b - a)[rows].mean())
    values = {"auroc": roc_auc_score(wrong, b) - roc_auc_score(wrong, a), "mean": (b - a).mean()}
    for name, drawn in plain.items():
        low, high = np.quantile(drawn, [0.025, 0.975]) - values[name]
        ends = found[name]
        assert ends is not None
        assert ends == pytest.approx((low, high), abs=0.12 * (high - low))
    # Resampling the two on their own, which forgets that they are of the same images, would say far less.
    alone = np.quantile(np.array(plain["auroc"]) - rng.permutation(plain["auroc"]), [0.025, 0.975])
    assert found["auroc"][1] - found["auroc"][0] < alone[1] - alone[0]  # type: ignore[index]


def test_the_same_scoring_twice_differs_by_nothing() -> None:
    rng = np.random.default_rng(1)
    values, wrong = rng.normal(size=500), rng.random(500) < 0.2
    counters = [paired.counter(values, wrong.astype(int)) for _ in range(2)]
    found = paired.deviations(
        lambda weights: {
            "auroc": np.subtract(*(counted.auroc(*paired.counts(weights, counter)) for counter in counters))
        },
        [500],
        [500],
    )
    assert found == {"auroc": (0.0, 0.0)}


def test_a_sample_stands_for_all_images() -> None:
    """The interval of a mean from a sixteenth of the images is as wide as the interval from all of them."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=16_000)

    def width(sample: np.ndarray, images: int) -> float:
        ends = paired.deviations(lambda weights: {"mean": weights @ sample / weights.sum(1)}, [sample.size], [images])
        assert ends["mean"] is not None
        return ends["mean"][1] - ends["mean"][0]

    assert width(values[:1000], 16_000) == pytest.approx(width(values, 16_000), rel=0.12)
    assert width(values, 16_000) == pytest.approx(2 * 1.96 / 16_000**0.5, rel=0.12)


def test_of_several_samples_the_least_thinned_one_sets_the_scale() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=400)
    half = paired.deviations(lambda a, b: {"m": b @ values / 400}, [400, 400], [1600, 400])["m"]
    full = paired.deviations(lambda a, b: {"m": b @ values / 400}, [400, 400], [400, 400])["m"]
    assert half == full


def test_intervals_repeat_and_undefined_metrics_have_none() -> None:
    def statistic(weights: Any) -> dict[str, Any]:
        return {"sum": weights[:, 0], "never": np.full(len(weights), np.nan)}

    first, second = (paired.deviations(statistic, [50], [50], seed=4) for _ in range(2))
    assert first == second
    assert first["never"] is None


@pytest.mark.parametrize("images", [7, 40, 1001])
def test_the_median_has_the_interval_that_many_resamples_would_give(images: int) -> None:
    rng = np.random.default_rng(5)
    values = np.sort(rng.exponential(size=images))
    middle, low, high = (values[int(np.ceil(share * images - 1e-9)) - 1] for share in paired.median_ranks(images))
    assert middle == np.quantile(values, 0.5, method="inverted_cdf")
    resamples = rng.choice(values, (20_000, images))
    medians = np.quantile(resamples, 0.5, axis=1, method="inverted_cdf")
    for end, level in ((low, 0.025), (high, 0.975)):
        assert np.mean(medians < end) <= level + 0.005
        assert np.mean(medians <= end) >= level - 0.005


def test_cells_keep_order_ties_and_what_is_not_counted() -> None:
    values = np.array([3.0, 1.0, 2.0, 2.0, 9.0])
    kinds = np.array([0, 0, 1, 0, -1])
    known, unknown = paired.counts(np.array([[1.0, 2, 1, 1, 5]]), paired.counter(values, kinds))
    assert (known.tolist(), unknown.tolist()) == ([[2, 1, 1]], [[0, 1, 0]])


def test_merged_cells_change_an_auroc_by_next_to_nothing() -> None:
    rng = np.random.default_rng(6)
    kinds = (rng.random(20_000) < 0.1).astype(int)
    values = rng.normal(size=20_000) + kinds
    coarse = paired.counts(np.ones((1, 20_000)), paired.counter(values, kinds, cells=500))
    assert coarse[0].shape[1] <= 502
    assert counted.auroc(*coarse)[0] == pytest.approx(roc_auc_score(kinds, values), abs=1e-4)
