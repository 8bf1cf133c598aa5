"""Two samples of vectors against scikit-learn, plain loops over pairs of images, and against themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
import sklearn.covariance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from regrad.metrics import two_samples as tested
from regrad.metrics.two_samples import (
    DomainClassifier,
    KernelStatistic,
    Pooled,
    by_group,
    fourier_features,
    two_samples,
)


def drawn(known: int, new: int, width: int, shift: float, seed: int = 0) -> tuple[Any, Any]:
    """Vectors whose numbers are of unlike sizes and go together; ``new`` lie further along one of them."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width)) * np.geomspace(0.1, 10, width)
    samples = [rng.standard_normal((images, width)) @ mixing + 3 for images in (known, new)]
    return samples[0], samples[1] + shift * mixing[0]


def labelled(samples: Pooled) -> np.ndarray:
    return samples.is_new[:, None]


def test_the_classifier_is_a_linear_discriminant_that_is_judged_on_other_images() -> None:
    samples = Pooled(*drawn(130, 71, 8, 0.5))
    covariance = sklearn.covariance.ledoit_wolf(samples.vectors, assume_centered=True)[0]
    values = []
    for fold in range(5):
        others = samples.folds != fold
        means = [samples.vectors[others & (samples.is_new == side)].mean(0) for side in (1, 0)]
        scores = samples.vectors[~others] @ np.linalg.solve(covariance, means[0] - means[1])
        values.append(roc_auc_score(samples.is_new[~others], scores))
        counts = np.bincount(samples.is_new[~others].astype(int))
        assert counts[0] == 26
        assert counts[1] in (14, 15)
    assert DomainClassifier(samples)(labelled(samples)) == pytest.approx([np.mean(values)], abs=2e-4)


@pytest.mark.parametrize("shift", [0.3, 1.0])
def test_it_tells_as_much_as_logistic_regression(shift: float) -> None:
    samples = Pooled(*drawn(600, 500, 8, shift))
    split = PredefinedSplit(samples.folds)
    logistic = LogisticRegression(max_iter=500)
    said = cross_val_predict(logistic, samples.vectors, samples.is_new, cv=split, method="decision_function")
    ours = DomainClassifier(samples)(labelled(samples))[0]
    assert ours == pytest.approx(roc_auc_score(samples.is_new, said), abs=0.01)
    assert ours == pytest.approx(scipy.stats.norm.cdf(shift / 2**0.5), abs=0.04)


def pairs(features: np.ndarray, is_new: np.ndarray) -> float:
    """The unbiased statistic, image by image."""
    rows = features.astype(np.float64)
    sums = {"within new": 0.0, "within known": 0.0, "across": 0.0}
    for i, x in enumerate(rows):
        for j, y in enumerate(rows):
            if i != j and is_new[i] == is_new[j]:
                sums["within new" if is_new[i] else "within known"] += x @ y
            elif is_new[i] and not is_new[j]:
                sums["across"] += x @ y
    new = int(is_new.sum())
    known = len(rows) - new
    within = sums["within new"] / (new * (new - 1)) + sums["within known"] / (known * (known - 1))
    return float(within - 2 * sums["across"] / (known * new))


def test_the_kernel_statistic_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "BLOCK", 7)
    samples = Pooled(*drawn(23, 12, 6, 0.5))
    features = fourier_features(samples)
    columns = np.concatenate([*tested._permuted(samples.is_new, samples.folds, 19, np.random.default_rng([0, 2]))], 1)
    assert columns.shape == (35, 20)
    assert len({tuple(column) for column in columns.T}) == 20
    for fold in range(5):  # every permutation is stratified as the samples are
        assert np.unique(columns[samples.folds == fold].sum(0)).size == 1
    values = np.array([pairs(features, column) for column in columns.T])
    np.testing.assert_allclose(KernelStatistic(features)(columns), values, atol=1e-6)
    told = two_samples(samples, features, permutations=19)
    assert told.mmd == pytest.approx(values[0], abs=1e-6)
    assert told.mmd_p == (1 + (values[1:] >= values[0]).sum()) / 20
    classified = [DomainClassifier(samples)(column[:, None])[0] for column in columns.T]
    assert told.auroc_p == (1 + sum(value >= classified[0] for value in classified[1:])) / 20


def test_its_kernel_is_nearly_the_gaussian_one_of_the_median_distance() -> None:
    samples = Pooled(*drawn(150, 150, 6, 0.5))
    features = fourier_features(samples)
    distances = scipy.spatial.distance.pdist(samples.vectors)
    gaussian = np.exp(-(distances**2) / (2 * np.median(distances) ** 2))
    ours = scipy.spatial.distance.squareform(features @ features.T, checks=False)
    assert np.abs(ours - gaussian).mean() < 0.03
    assert np.square(features).sum(1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("statistic", ["auroc_p", "mmd_p"])
def test_where_nothing_has_changed_every_p_is_as_likely(statistic: str, nothing: list[Any]) -> None:
    ps = np.array([getattr(told, statistic) for told in nothing])
    counts = np.bincount(np.minimum((ps * 10).astype(int), 9), minlength=10)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert scipy.stats.binomtest(int((ps <= 0.1).sum()), len(ps), 0.1).pvalue > 1e-3


@pytest.fixture(scope="module")
def nothing() -> list[Any]:
    """What is told of pairs of samples of one distribution."""
    told = []
    for seed in range(80):
        samples = Pooled(*drawn(40, 20, 5, 0, seed), seed)
        told.append(two_samples(samples, fourier_features(samples), permutations=99))
    return told


def test_the_same_images_on_both_sides_are_no_drift() -> None:
    same, _ = drawn(60, 1, 5, 0)
    samples = Pooled(same, same)
    told = two_samples(samples, fourier_features(samples), permutations=99)
    assert min(told.auroc_p, told.mmd_p) > 0.5
    rng = np.random.default_rng(0)
    dead = [np.concatenate([vectors, np.full_like(vectors, 0.3)], 1) for vectors in rng.standard_normal((2, 60, 5))]
    both = [
        two_samples(each, fourier_features(each), 99) for each in (Pooled(*dead), Pooled(*(x[:, :5] for x in dead)))
    ]
    assert both[0].auroc == both[1].auroc  # numbers that never change tell nothing
    flat = Pooled(np.ones((30, 4)), np.ones((20, 4)))
    assert two_samples(flat, fourier_features(flat), permutations=9).auroc == 0.5


def test_the_same_seed_gives_the_same_numbers() -> None:
    def told(seed: int) -> Any:
        samples = Pooled(*drawn(50, 40, 5, 0.2), seed)
        return two_samples(samples, fourier_features(samples), permutations=19)

    assert told(0) == told(0) != told(1)


def test_a_group_that_has_changed_is_told_from_those_that_have_not() -> None:
    known, new = drawn(400, 400, 6, 0)
    groups = np.arange(800) % 10
    new[groups[400:] == 3] += 2 * known.std(0)
    kept = np.r_[np.flatnonzero(groups[:400] != 7), np.flatnonzero(groups[:400] == 7)[:5]]
    samples, groups = Pooled(known, new[kept]), np.r_[groups[:400], groups[400:][kept]]
    features = fourier_features(samples)
    told = by_group(samples, features, groups, fewest=20, permutations=99)
    assert told.keys() == set(range(10)) - {7}
    assert [group for group, test in told.items() if test.p_adjusted <= 0.01] == [3]
    assert told[3].p == told[3].p_adjusted == 0.01
    assert all(test.p_adjusted >= test.p - 0.05 for test in told.values())
    rows = groups == 3
    assert told[3].mmd == pytest.approx(pairs(features[rows], samples.is_new[rows]), abs=1e-6)
    assert by_group(samples, features, groups, fewest=41) == {}


def test_no_group_is_called_changed_more_often_than_is_said() -> None:
    smallest = []
    for seed in range(40):
        samples = Pooled(*drawn(160, 160, 4, 0, seed), seed)
        told = by_group(samples, fourier_features(samples), np.arange(320) % 8, fewest=20, permutations=99)
        smallest.append(min(test.p_adjusted for test in told.values()))
    wrongly = (np.array(smallest) <= 0.1).sum()
    assert scipy.stats.binomtest(int(wrongly), 40, 0.1).pvalue > 1e-3


def test_samples_that_are_too_small_for_folds_are_refused() -> None:
    with pytest.raises(ValueError, match="a sample has 9 vectors; 10 are needed"):
        Pooled(np.ones((30, 2)), np.ones((9, 2)))
