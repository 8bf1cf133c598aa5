"""Images in, one column per requested score out: the only place that knows both scores and gradients.

Each kind of class-gradient norms (clean or smoothed) is computed once, whatever the number of scores that need it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regrad import perturb
from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.gradients import cut
from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import Layer, find_layers, layer_weights, private_copy
from regrad.gradients.reference import ReferenceEngine
from regrad.scores import Inputs, Norms, Score, find_scores

ENGINES: dict[str, Any] = {"exact": ExactEngine, "reference": ReferenceEngine}
NOISE_SPACES = ("normalized", "pixel")
MAX_INPUTS = {"cpu": 256, "cuda": 4096}  # copies run at once: more gain nothing, and leave the caches
DEFAULT_MEMORY = {"cpu": 1 << 30, "cuda": 16 << 30}


class Scorer:
    """Scores images with one classifier and one configuration; usable without Ray.

    A score depends on the image, its id (which keys the noise), the classifier and these settings; not on the batch.

    Args:
        classifier: the network with its preprocessing. The caller's network is not changed.
        scores: names from :data:`regrad.scores.SCORES`.
        sigma: deviation of the input noise (Eq. 13), in the units of ``noise_space``.
        samples: N, how many noisy copies an image gets; 0 turns smoothing off.
        depth_decay: lambda of Eq. 12; 0 weighs all layers alike, ``math.inf`` keeps the last alone.
        seed: of the noise.
        engine: ``auto``, ``exact``, or ``reference`` (float64, one class at a time: slow, for checks).
        tolerance: the share of the squared gradient that may be left out upstream, where layers weigh little; the
            relative error of a score is about half of it. 0 differentiates every layer.
        noise_space: ``normalized`` adds noise to what the network receives, ``pixel`` to the [0, 1] image.
        layers: ``modules`` (each module with parameters is a layer) or ``stages`` (each top-level child is one).
        directions: of the sketch engine.
        memory_budget: bytes the engine may use beside the network; larger batches are split inside.
        device: where to compute; None takes the GPU if there is one.
        plan: the ``plan`` of another scorer of the same configuration, so that workers do not resolve it again.

    Raises:
        UsageError: a setting out of its range, an unknown name, or a network whose images influence each other.
    """

    def __init__(
        self,
        classifier: Classifier,
        scores: Sequence[str] = ("regrad",),
        sigma: float = 0.02,
        samples: int = 10,
        depth_decay: float = 0.3,
        seed: int = 0,
        engine: str = "auto",
        tolerance: float = 2e-3,
        noise_space: str = "normalized",
        layers: str = "modules",
        directions: int = 16,
        memory_budget: int | None = None,
        device: str | torch.device | None = None,
        plan: dict[str, Any] | None = None,
    ) -> None:
        _check_settings(sigma, samples, tolerance, noise_space, engine, memory_budget)
        self.classifier = classifier
        self.scores = find_scores(scores)
        self.sigma, self.samples, self.seed, self.noise_space = sigma, samples, seed, noise_space
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.memory_budget = memory_budget or DEFAULT_MEMORY.get(self.device.type, 1 << 30)
        self._network = private_copy(classifier.network).to(self.device)
        self._dtype = next((value.dtype for value in self._network.parameters()), torch.float32)
        self._engines: list[_Pass] = []
        self.plan: dict[str, Any] = {"engine": "none", "why": "no score needs gradients"}
        kinds = list(dict.fromkeys(_kind(item, samples) for item in self.scores if item.norms is not None))
        if kinds:
            self.plan = self._plan_gradients(kinds, engine, depth_decay, tolerance, layers, plan)

    @torch.no_grad()
    def __call__(self, images: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        """One column per requested score, and ``prediction`` and ``confidence``.

        Args:
            images: float (B, channels, H, W) in [0, 1], as :meth:`Classifier.preprocess` returns them.
            ids: B strings that name the images; the noise of an image is a function of (seed, id).

        Returns:
            Tensors (B,) on the CPU: scores float64, ``prediction`` int64, ``confidence`` float64. An image on which
            the network gives NaN or infinity has NaN scores.

        Raises:
            UsageError: shapes, dtype or number of ids do not fit.
        """
        expected = (self.classifier.channels, *self.classifier.image_size)
        if images.dim() != 4 or tuple(images.shape[1:]) != expected or not images.is_floating_point():
            raise UsageError(
                f"images are {images.dtype} {tuple(images.shape)}; this classifier takes float (B, {expected[0]}, "
                f"{expected[1]}, {expected[2]}) in [0, 1]"
            )
        if len(ids) != len(images):
            raise UsageError(f"{len(ids)} ids for {len(images)} images")
        step = self._images_per_step()
        parts = [self._score(images[i : i + step], ids[i : i + step]) for i in range(0, len(images), step)]
        parts = parts or [{name: torch.zeros(0) for name in ("prediction", "confidence", *self.names)}]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @property
    def names(self) -> list[str]:
        """The requested scores, in order."""
        return [item.name for item in self.scores]

    def _score(self, images: Tensor, ids: Sequence[str]) -> dict[str, Tensor]:
        if len(images) == 1:
            # A matrix of one row takes another kernel, whose rounding a confident image's small probabilities show
            # (2e-5 in ExGrad); from two rows on, results do not depend on the batch.
            twice = self._score(images.repeat(2, 1, 1, 1), [*ids, *ids])
            return {name: column[:1] for name, column in twice.items()}
        norms, logits = self._norms(images.to(self.device), ids)
        p = logits.softmax(1)
        columns = {"prediction": p.argmax(1), "confidence": p.amax(1)}
        broken = ~logits.isfinite().all(1)
        for item in self.scores:
            value = item.compute(Inputs(logits, norms.get(_kind(item, self.samples)) if item.norms else None))
            columns[item.name] = value.masked_fill(broken, math.nan)
        return {name: column.cpu() for name, column in columns.items()}

    def _norms(self, images: Tensor, ids: Sequence[str]) -> tuple[dict[Norms, Tensor], Tensor]:
        """Class-gradient norms of every kind that is needed, each (B, C), and the clean logits."""
        result: dict[Norms, Tensor] = {}
        logits: Tensor | None = None
        for item in self._engines:
            found = item.engine(self._copies(images, ids, item.smoothed))
            logits = found.logits[:, 0]
            result |= {kind: squared.sqrt() for kind, squared in zip(item.kinds, found.squared, strict=True)}
        if logits is None:
            logits = self._network(self._copies(images, ids, False)[:, 0]).double()
        return result, logits

    def _copies(self, images: Tensor, ids: Sequence[str], smoothed: bool) -> Tensor:
        """What the network receives: (B, N+1, channels, H, W), the clean image first."""
        samples = self.samples if smoothed else 0
        if self.noise_space == "pixel":
            noisy = perturb.noisy_copies(images, ids, samples, self.sigma, self.seed)
            return self.classifier.normalize(noisy).to(self._dtype)
        normalized = self.classifier.normalize(images)
        return perturb.noisy_copies(normalized, ids, samples, self.sigma, self.seed).to(self._dtype)

    def _plan_gradients(
        self,
        kinds: list[Norms],
        engine: str,
        depth_decay: float,
        tolerance: float,
        grouping: str,
        plan: dict[str, Any] | None,
    ) -> dict[str, Any]:
        probe = cut.probe_images(cut.PROBES, self.classifier.channels, self.classifier.image_size)
        inputs = self.classifier.normalize(probe).to(self.device, self._dtype)
        layers = find_layers(self._network, inputs[:3], grouping)
        decayed = layer_weights(layers, depth_decay)
        plan = plan or _resolve(self._network, engine, layers, decayed, inputs, tolerance)
        counted = torch.tensor([float(layer.index >= plan["first_layer"]) for layer in layers], dtype=torch.float64)
        rows = {True: decayed * counted, False: torch.ones_like(decayed)}
        for smoothed in (True, False):
            own = [kind for kind in kinds if kind.smoothed == smoothed]
            if own:
                weights = torch.stack([rows[kind.decayed] for kind in own])
                network = private_copy(self.classifier.network).to(self.device)
                built = ENGINES[plan["engine"]](network, layers, weights, inputs)
                self._engines.append(_Pass(smoothed, own, built))
        return plan

    def _images_per_step(self) -> int:
        """How many images fit the memory budget at once, in the dearest pass."""
        most = MAX_INPUTS.get(self.device.type, 256)
        steps = [
            min(most, self.memory_budget // item.engine.bytes_per_input) // (self.samples + 1 if item.smoothed else 1)
            for item in self._engines
        ]
        return max(1, min(steps, default=most))


@dataclass(frozen=True)
class _Pass:
    """One run of an engine over a batch, and the kinds of norms it brings, in the order of its weightings."""

    smoothed: bool
    kinds: list[Norms]
    engine: Any


def _kind(item: Score, samples: int) -> Norms:
    """The norms a score needs; without copies, smoothed norms are the clean ones."""
    assert item.norms is not None
    return item.norms if samples else Norms(False, item.norms.decayed)


def _resolve(
    network: torch.nn.Module, engine: str, layers: list[Layer], weights: Tensor, inputs: Tensor, tolerance: float
) -> dict[str, Any]:
    """The choices that scores depend on, from the model and the configuration alone."""
    count = max(layer.index for layer in layers)
    plan: dict[str, Any] = {"engine": "exact" if engine == "auto" else engine, "layers": count, "first_layer": 1}
    if plan["engine"] == "reference" or tolerance == 0:
        return plan | {"left_out": 0.0, "why": "every layer is differentiated"}
    shares = cut.layer_shares(network, layers, weights, inputs)
    first, left_out = cut.first_kept(layers, shares, tolerance)
    why = f"layers before {first} of {count} hold {left_out:.1e} of the squared gradient, at most {tolerance:g}"
    return plan | {"first_layer": first, "left_out": left_out, "why": why}


def _check_settings(
    sigma: float, samples: int, tolerance: float, noise_space: str, engine: str, memory_budget: int | None
) -> None:
    checks = {
        f"sigma {sigma}: must be 0 or larger": sigma >= 0 and math.isfinite(sigma),
        f"samples {samples}: must be a whole number, 0 or larger": isinstance(samples, int) and samples >= 0,
        f"tolerance {tolerance}: must be at least 0 and below 1": 0 <= tolerance < 1,
        f"noise space {noise_space!r}: one of {', '.join(NOISE_SPACES)}": noise_space in NOISE_SPACES,
        f"engine {engine!r}: one of auto, {', '.join(ENGINES)}": engine == "auto" or engine in ENGINES,
        f"memory budget {memory_budget}: must be positive": memory_budget is None or memory_budget > 0,
    }
    for message, holds in checks.items():
        if not holds:
            raise UsageError(message)
