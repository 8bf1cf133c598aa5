"""Scores as detectors, judged by pytorch-ood's own metrics."""

from __future__ import annotations

import pytest
import torch

from regrad import Classifier, Scorer
from regrad.detector import Detector
from regrad.metrics import auroc, fpr_at_tpr
from tests.networks import SIZE, build


def detector(*scores: str, score: str | None = None) -> Detector:
    classifier = Classifier(build("BatchNorm CNN", torch.float32), SIZE, mean=0.4, std=0.3)
    return Detector(Scorer(classifier, scores, samples=2), score)


@pytest.mark.parametrize("score", ["regrad", "entropy", "perturb_x"])
def test_pytorch_oods_metrics_take_its_predictions(score: str) -> None:
    pytorch_ood = pytest.importorskip("pytorch_ood.metrics")
    generator = torch.Generator().manual_seed(0)
    known = torch.rand(24, 3, SIZE, SIZE, generator=generator)
    unknown = 0.5 + 0.02 * torch.randn(24, 3, SIZE, SIZE, generator=generator)
    found = detector("regrad", "entropy", "perturb_x", score=score).fit(None)
    metrics = pytorch_ood.OODMetrics()
    metrics.update(found.predict(known), torch.zeros(24, dtype=torch.long))
    metrics.update(found(unknown), torch.full((24,), -1))  # negative labels are OOD there
    values = metrics.compute()
    assert values["FPR95TPR"] == pytest.approx(fpr_at_tpr(found(known), found(unknown)), abs=1e-6)
    assert values["AUROC"] == pytest.approx(auroc(found(known), found(unknown)), abs=1e-6)


def test_an_image_has_its_score_wherever_it_stands() -> None:
    images = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    found = detector("regrad")
    order = [3, 1, 4, 0, 2]
    torch.testing.assert_close(found(images[order]), found(images)[order], rtol=1e-6, atol=0)


def test_a_score_the_scorer_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="energy: the scorer has regrad"):
        detector("regrad", score="energy")
