"""(c) Whether every engine and every score gives on the device what it gives on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from regrad import Scorer
from regrad.benchmarks.gpu import speed
from regrad.benchmarks.gpu.bench import Bench
from regrad.network.probe import probe_images
from regrad.scores import SCORES
from regrad.scores.draws import posterior
from regrad.scores.statistics import fit_statistics

IMAGES, SAMPLES, DRAWS = 32, 2, 3


def compared(bench: Bench) -> Iterator[dict[str, Any]]:
    """For each engine and score the largest difference over the largest score, on 32 images at N = 2, float32."""
    fitting = importlib.util.find_spec("laplace") is not None  # laplace-torch, which the posterior is fitted by
    names = [name for name in SCORES if fitting or SCORES[name].fitted != "posterior"]
    gradients = [name for name in names if SCORES[name].norms is not None]
    for case in speed.cases(bench)[:: 1 if bench.tiny else 3]:  # the small ones: the CPU has to do it, too
        classifier = case.classifier()
        images = probe_images(4 if bench.tiny else IMAGES, classifier.channels, classifier.image_size)
        ids = [str(row) for row in range(len(images))]
        labels = torch.arange(len(images)) % classifier.num_classes
        fitted = _fitted(classifier.network, classifier.normalize(images), labels, fitting)
        for engine in ("exact", "sketch", "reference"):
            asked = names if engine == "exact" else gradients
            wanted, found = (
                Scorer(
                    classifier,
                    asked,
                    samples=SAMPLES,
                    draws=DRAWS,
                    engine=engine,
                    device=device,
                    **(fitted if engine == "exact" else {}),
                )(images, ids)
                for device in ("cpu", bench.device)
            )
            differences = {
                name: float((found[name] - wanted[name]).abs().max() / wanted[name].abs().max().clamp_min(1e-300))
                for name in asked
            }
            same = float((found["prediction"] == wanted["prediction"]).double().mean())
            yield {"case": case.name, "engine": engine, "same_prediction": same, "differences": differences}


def _fitted(network: nn.Module, inputs: Tensor, labels: Tensor, laplace: bool) -> dict[str, Any]:
    """What scores need of training data, by the argument of the scorer that takes it."""
    posteriors = {"posterior": posterior.fit(network, inputs, labels)} if laplace else {}
    return {"statistics": fit_statistics(network, [(inputs, labels)], torch.device("cpu")), **posteriors}


def worst(differences: dict[str, float]) -> tuple[str, float]:
    """The score that differs most, and by how much; not NEGrad, which is zero but for rounding."""
    others = {name: difference for name, difference in differences.items() if name != "negrad"}
    return max(others.items(), key=lambda item: (item[1] != item[1], item[1]))
