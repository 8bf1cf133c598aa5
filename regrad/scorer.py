"""Images in, one column per requested score out: the only place that knows both scores and gradients.

Each kind of class-gradient norms (clean or smoothed) is computed once, whatever the number of scores that need it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from regrad import perturb
from regrad.classifier import Classifier
from regrad.errors import RegradError, UsageError, require
from regrad.gradients import cut
from regrad.gradients.norms import ClassNorms
from regrad.gradients.passes import GradientSettings, Kind, Passes
from regrad.network import head
from regrad.network.copies import check_copy, floating_type, plain_attention, private_copy
from regrad.network.fold import forward_copy
from regrad.network.memory import FEWEST, even_slices, forward_bytes, in_pieces, inputs_kept, out_of_memory
from regrad.network.probe import probe_images
from regrad.network.upload import Upload
from regrad.precision import computing
from regrad.scores import Inputs, Norms, Predictions, Score, find_scores
from regrad.scores.draws import predictions
from regrad.scores.draws.posterior import PosteriorDraws
from regrad.scores.entropy import nll
from regrad.scores.registry import EXPONENT
from regrad.scores.sets import loss_bound, prediction_sets
from regrad.scores.state import State, fingerprint
from regrad.scores.statistics import FeatureStatistics
from regrad.settings.columns import STANDARD_ERROR
from regrad.settings.scoring import check_values

MAX_INPUTS = {"cpu": 128, "cuda": 4096}  # copies run at once: more gain nothing, and leave the caches
_LARGEST = torch.finfo(torch.float16).max
DEFAULT_MEMORY = 1 << 30  # of a GPU, half of what is free


class Scorer:
    """Scores images with one classifier and one configuration; usable without Ray.

    A score depends on the image, its id (which keys the noise), the classifier and these settings; not on the batch.

    Args:
        classifier: the network with its preprocessing. The caller's network is not changed.
        scores: names from :data:`regrad.scores.SCORES`.
        sigma: deviation of the input noise (Eq. 13), in the units of ``noise_space``.
        samples: N, how many noisy copies an image gets; 0 turns smoothing off.
        depth_decay: lambda of Eq. 12; 0 weighs all layers alike, ``math.inf`` keeps the last alone.
        exponent: gamma, REGrad weighs the gradient of a class by p^gamma: 0.5 is Eq. 11's root, 1 ExGrad's weighing.
        seed: of the noise, and of the sketch engine's directions.
        engine: ``auto``, ``exact``, ``sketch`` (random directions: an estimate, whose cost does not depend on the
            number of classes), or ``reference`` (float64, one class at a time: slow, for checks).
        tolerance: the share of the squared gradient that may be left out upstream, where layers weigh little; twice as
            much together with layers of classes that weigh little, which is estimated. The relative error of a score is
            about half of it. 0 differentiates every layer for every class.
        noise_space: ``normalized`` adds noise to what the network receives, ``pixel`` to the [0, 1] image.
        layers: ``modules`` (each module with parameters is a layer) or ``stages`` (each top-level child is one).
        directions: of the sketch engine; more are more precise and cost more.
        standard_errors: add a column ``<score>_se`` for each gradient score: the standard error that the sketch
            engine's directions leave, by the jackknife; 0 with the other engines.
        draws: K, of the predictions that ``perturb_theta``, ``mc_aa``, ``inserted_dropout`` and ``laplace`` are
            functions of.
        theta_sigma: deviation of every parameter for ``perturb_theta``: see ``predictions.DrawSettings``.
        dropout_rate, dropout_at: of ``inserted_dropout``: the share of features dropped, and whether before ``all``
            layers but the first, or the ``last``.
        posterior: from :func:`regrad.scores.draws.posterior.fit`, for ``laplace``.
        statistics: from :func:`regrad.scores.statistics.fit_statistics`, for scores that compare with training data.
        logits: add the clean image's logits, as the scores see them; they cost no further pass.
        embeddings: add ``embedding``, what the network's last Linear layer is given of the clean image.
        coverage: add ``prediction_set``, classes that hold an image's own with at least this probability: see
            :func:`regrad.scores.sets.prediction_sets`. Needs a classifier with a ``calibration``.
        precision: of gradients: ``float32``, ``tf32`` or ``bfloat16``. Predictions, the perturbed ones included, are
            always computed in the network's own type: small differences of them are what several scores are made of.
        memory_budget: bytes the engine may use beside the network, for any number of classes; larger batches are
            split inside. None: 1 GiB, or half of what is free on a GPU.
        device: where to compute; None takes the GPU if there is one.
        plan: the ``plan`` of another scorer of the same configuration, so that workers do not resolve it again.

    Attributes:
        plan: the choices that scores depend on: ``engine``, ``first_layer``, ``directions``, and ``why``.
        warn: called with a line when memory does not suffice; batches are then split further.

    Raises:
        UsageError: a setting out of its range, an unknown name, or a network whose images influence each other.
    """

    @computing("float32")  # what is tried on the probe is compared to more digits than a GPU's convolutions have else
    def __init__(
        self,
        classifier: Classifier,
        scores: Sequence[str] = ("regrad",),
        sigma: float = 0.02,
        samples: int = 10,
        depth_decay: float = 0.3,
        exponent: float = 0.5,
        seed: int = 0,
        engine: str = "auto",
        tolerance: float = 2e-3,
        noise_space: str = "normalized",
        layers: str = "modules",
        directions: int = 16,
        standard_errors: bool = False,
        draws: int = 10,
        theta_sigma: float = 1e-3,
        dropout_rate: float = 0.1,
        dropout_at: str = "all",
        posterior: State | None = None,
        statistics: State | None = None,
        logits: bool = False,
        embeddings: bool = False,
        coverage: float | None = None,
        precision: str = "float32",
        memory_budget: int | None = None,
        device: str | torch.device | None = None,
        plan: dict[str, Any] | None = None,
    ) -> None:
        check_values({**locals(), "scores": list(scores)})  # each by its line in regrad.settings.scoring
        settings = GradientSettings(samples, depth_decay, engine, tolerance, layers, directions, seed)
        require(
            {
                f"memory budget {memory_budget}: must be positive": memory_budget is None or memory_budget > 0,
                "directions 1: standard errors need at least 2": directions != 1 or not standard_errors,
            }
        )
        self.classifier = classifier
        self.scores = find_scores(scores)
        self.sigma, self.samples, self.seed, self.noise_space = sigma, samples, seed, noise_space
        self.standard_errors, self.precision = standard_errors, precision
        self.exponent, self.logits, self.embeddings, self.coverage = exponent, logits, embeddings, coverage
        self._loss_bound = loss_bound(classifier.calibration, coverage)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.warn: Callable[[str], None] = warnings.warn
        self._upload = Upload(self.device)
        network = private_copy(classifier.network).to(self.device)
        self._dtype = floating_type(network)
        self._passes: Passes | None = None
        self.plan: dict[str, Any] = {"engine": "none", "why": "no score needs gradients"}
        probe = probe_images(cut.PROBES, classifier.channels, classifier.image_size)
        inputs = classifier.normalize(probe).to(self.device, self._dtype)
        check_copy(classifier.network, network, inputs[:FEWEST])
        self._network = forward_copy(network, inputs)
        self._head = self._head_input(inputs[:2])
        self._fitted = self._statistics(statistics)
        kinds = list(dict.fromkeys(self._kind(item) for item in self.scores if item.norms is not None))
        if kinds:
            coarse = torch.bfloat16 if precision == "bfloat16" else self._dtype
            self._passes = Passes(classifier.network, kinds, inputs, settings, coarse, plan)
            self.plan = self._passes.plan
        memory = memory_budget or self._default_memory()
        perturbing = predictions.DrawSettings(draws, theta_sigma, dropout_rate, dropout_at, seed, memory)
        perturbing.check()
        self._sources = self._build_sources(network, perturbing, inputs[:1], posterior)
        needed = {item.fitted for item in self.scores}
        fitted = {name: state for name, state in (("posterior", posterior), ("statistics", statistics)) if state}
        self.plan = self.plan | {name: fingerprint(fitted[name])[:16] for name in fitted if name in needed}
        self._most = inputs_kept(self._network, inputs[:1])  # that a forward pass by itself takes
        self._planned_step = self._step = self._plan_memory(memory, inputs[:1])

    @torch.no_grad()
    def __call__(
        self, images: Tensor, ids: Sequence[str], labels: Sequence[int | None] | None = None
    ) -> dict[str, Tensor]:
        """One column per requested score, and ``prediction`` and ``confidence``.

        Args:
            images: (B, channels, H, W), float in [0, 1] (:meth:`Classifier.preprocess`) or uint8, 255 times as much
                (``classifier.preprocessing.compact``).
            ids: B strings that name the images; the noise of an image is a function of (seed, id).
            labels: B class indices, None where unknown; adds ``nll`` = -log p of the label, NaN where it is no class.

        Returns:
            Tensors (B,) on the CPU: scores and ``nll`` float64, ``prediction`` int64, ``confidence`` float64; and
            ``logits`` float32 and ``prediction_set`` int32 (B, C), -1 after a set's end, and ``embedding`` float16
            (B, d) within its range. An image on which the network gives NaN or infinity has NaN scores.

        Raises:
            UsageError: shapes, dtype or number of ids do not fit.
        """
        expected = (self.classifier.channels, *self.classifier.image_size)
        if images.dim() != 4 or tuple(images.shape[1:]) != expected or not _are_pixels(images):
            raise UsageError(
                f"images are {images.dtype} {tuple(images.shape)}; this classifier takes (B, {expected[0]}, "
                f"{expected[1]}, {expected[2]}), float in [0, 1] or uint8"
            )
        if len(ids) != len(images):
            raise UsageError(f"{len(ids)} ids for {len(images)} images")
        if labels is not None and len(labels) != len(images):
            raise UsageError(f"{len(labels)} labels for {len(images)} images")
        if not len(images):
            extra = () if labels is None else ("nll",)
            empty = {name: torch.zeros(0) for name in ("prediction", "confidence", *extra, *self.names)}
            features = torch.zeros(0, self.embedding_width or 0)
            return empty | self._several(torch.zeros(0, self.classifier.num_classes), features)
        images = self._upload.pinned(images)
        parts = []
        start = 0
        while start < len(images):
            step = self._step
            try:
                piece = slice(start, start + step)
                parts.append(self._score(images[piece], ids[piece], None if labels is None else labels[piece]))
                start += step
            except RuntimeError as error:
                self._split_further(error, min(step, len(images) - start))
        # Only now does the host wait for the device: meanwhile the next images went there.
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}

    @property
    def names(self) -> list[str]:
        """The columns of the requested scores, in order, each before its standard error if that was asked for."""
        return [name for item in self.scores for name in (item.name, *self._error_names(item))]

    @property
    def embedding_width(self) -> int | None:
        """d, how many numbers an embedding has; None where none were asked for."""
        return self._head.layer.weight.shape[1] if self._head and self.embeddings else None

    def _score(self, images: Tensor, ids: Sequence[str], labels: Sequence[int | None] | None) -> dict[str, Tensor]:
        if len(images) == 1:
            # A matrix of one row takes another kernel, whose rounding a confident image's small probabilities show
            # (2e-5 in ExGrad); from two rows on, results do not depend on the batch.
            twice = self._score(images.repeat(2, 1, 1, 1), [*ids, *ids], None if labels is None else [*labels, *labels])
            return {name: column[:1] for name, column in twice.items()}
        shared = self._shared(self._upload(images), ids)
        logits = shared.logits
        p = logits.softmax(1)
        columns = {"prediction": p.argmax(1), "confidence": p.amax(1)}
        broken = ~logits.isfinite().all(1)
        if labels is not None:
            columns["nll"] = nll(logits, labels).masked_fill(broken, math.nan)
        for item in self.scores:
            inputs = self._inputs(item, shared)
            columns[item.name] = item.compute(inputs).masked_fill(broken, math.nan)
            for name in self._error_names(item):
                without = shared.norms[self._kind(item)].norms_without_each()
                columns[name] = item.standard_error(inputs, without).masked_fill(broken, math.nan)
        return columns | self._several(logits, shared.features)

    def _several(self, logits: Tensor, features: Tensor | None) -> dict[str, Tensor]:
        """The columns of several numbers an image."""
        columns = {"logits": logits.float()} if self.logits else {}
        if self.embeddings and features is not None:
            columns["embedding"] = features.clamp(-_LARGEST, _LARGEST).half()
        if self._loss_bound is not None:
            columns["prediction_set"] = prediction_sets(logits, self._loss_bound)
        return columns

    def _inputs(self, item: Score, shared: _Shared) -> Inputs:
        """Of what the scores share, what one of them asked for."""
        return Inputs(
            shared.logits,
            item.own(shared.norms[self._kind(item)].norms[0]) if item.norms else None,
            shared.draws[item.predictions.source] if item.predictions else None,
            shared.features if item.features else None,
            self._head.layer if item.features and self._head else None,
            self._fitted if item.fitted == "statistics" else None,
            self.exponent,
        )

    @torch.no_grad()
    def measure_error(self, images: Tensor, ids: Sequence[str]) -> Tensor | None:
        """|S - S'| / S for each image, (B,): how far these gradients are from those of all layers by autograd.

        S = sum_c sqrt(p_c) ||a g_c||, as in REGrad, over some of the classes where there are many. Cut, sketch and
        precision all show. None where nothing is estimated (no gradients, or the reference engine), or where memory
        does not suffice for all layers, which :attr:`warn` is told.
        """
        if self._passes is None or self.plan["engine"] == "reference":
            return None
        try:
            with computing(self.precision):
                return self._passes.error(partial(self._copies, self._upload(images), ids), len(images))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            self.warn("the error of the gradients was not measured: out of memory with all layers of an image")
            return None

    def planned_bytes(self, images: int) -> int:
        """Memory that scoring so many images at once was planned to take beside the network: of gradients, if any."""
        return self._passes.planned_bytes(min(images, self._step)) if self._passes else 0

    def _split_further(self, error: RuntimeError, images: int) -> None:
        """Halve how many images go at once when ``images`` were too many for the memory; else raise."""
        if not out_of_memory(error):
            raise error
        if images == 1:
            raise RegradError(
                f"out of memory with a single image and its {self.samples} copies; lower samples, or raise tolerance"
            ) from error
        if self._step >= self._planned_step:
            self.warn(f"out of memory with {images} images at once: going on with fewer; a memory budget avoids this")
        self._step = images // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _kind(self, item: Score) -> Norms:
        """The norms a score needs; without copies, smoothed norms are the clean ones."""
        assert item.norms is not None
        smoothed, power = item.norms.smoothed and self.samples > 0, item.norms.power
        return replace(item.norms, smoothed=smoothed, power=self.exponent if power == EXPONENT else power)

    def _error_names(self, item: Score) -> list[str]:
        return [f"{item.name}{STANDARD_ERROR}"] if self.standard_errors and item.norms else []

    def _shared(self, images: Tensor, ids: Sequence[str]) -> _Shared:
        copies = partial(self._copies, images, ids)
        with computing(self.precision):
            norms, logits = self._passes(copies, len(images)) if self._passes else ({}, {})
        if self.precision != "float32":
            logits = {}
        noisy = "noise" in self._needed
        with computing("float32"), plain_attention():
            features = None
            if self._head:
                of_clean, features = self._head(copies(False, slice(None))[:, 0], self._most)
                logits = logits or {False: of_clean[:, None]}
            if noisy not in logits and (noisy or not logits):
                step = max(1, self._step // (self.samples * noisy + 1))
                parts = (copies(noisy, part) for part in even_slices(len(images), step))
                forward = partial(in_pieces, self._network, self._most)
                of_parts = [forward(x.flatten(0, 1)).double().unflatten(0, x.shape[:2]) for x in parts]
                logits[noisy] = torch.cat(of_parts)
            draws = {"noise": logits[True][:, 1:].log_softmax(2)} if noisy else {}
            if self._sources:
                x = copies(False, slice(None))[:, 0]
                draws |= {name: source(x, ids) for name, source in self._sources.items()}
        return _Shared(norms, draws, next(iter(logits.values()))[:, 0], features)

    def _head_input(self, probe: Tensor) -> head.HeadInput | None:
        """What reads the input of the last layer, where some score needs it or it is to be kept.

        Raises:
            UsageError: the logits come from no Linear layer.
        """
        needing = [item.name for item in self.scores if item.features] + ["embeddings"] * self.embeddings
        name = head.find_head(self._network, probe) if needing else None
        if needing and name is None:
            raise UsageError(
                f"{', '.join(needing)}: made of the input of a last Linear layer, and the logits of "
                f"{type(self.classifier.network).__name__} come from none; do without"
            )
        return head.HeadInput(self._network, name) if name else None

    def _statistics(self, state: State | None) -> FeatureStatistics | None:
        needing = [item.name for item in self.scores if item.fitted == "statistics"]
        if needing and state is None:
            raise UsageError(f"{', '.join(needing)}: needs training data: --fit-data, or statistics.fit_statistics")
        return FeatureStatistics(state, self._head.layer) if self._head and needing and state is not None else None

    @property
    def _needed(self) -> list[str]:
        """The sources of perturbed predictions that some score needs."""
        return list(dict.fromkeys(item.predictions.source for item in self.scores if item.predictions))

    def _build_sources(
        self, network: nn.Module, settings: predictions.DrawSettings, probe: Tensor, posterior: State | None
    ) -> dict[str, predictions.PredictionSource]:
        if "noise" in self._needed and not self.samples:
            names = ", ".join(item.name for item in self.scores if item.need == Predictions("noise"))
            raise UsageError(f"{names}: needs noisy copies of every image, and samples is 0")
        scale = 1.0 if self.noise_space == "normalized" else 1 / probe.new_tensor(self.classifier.std)[:, None, None]
        steps = self.sigma * scale * probe.new_ones(self.classifier.channels, 1, 1)
        others = [name for name in self._needed if name in predictions.SOURCES]
        sources = {name: predictions.build(name, network, settings, steps, probe) for name in others}
        if "laplace" in self._needed:
            if posterior is None:
                raise UsageError("laplace: needs training data to fit a posterior on: --fit-data, or posterior.fit")
            sources["laplace"] = PosteriorDraws(network, posterior, settings.draws, settings.seed, probe)
        return sources

    def _copies(self, images: Tensor, ids: Sequence[str], smoothed: bool, part: slice | list[int]) -> Tensor:
        """What the network receives of some images: (B, N+1, channels, H, W), the clean image first."""
        images, ids = images[part], ids[part] if isinstance(part, slice) else [ids[i] for i in part]
        samples = self.samples if smoothed else 0
        if self.noise_space == "pixel":
            noisy = perturb.noisy_copies(images, ids, samples, self.sigma, self.seed)
            return self.classifier.normalize(noisy).to(self._dtype)
        normalized = self.classifier.normalize(images)
        return perturb.noisy_copies(normalized, ids, samples, self.sigma, self.seed).to(self._dtype)

    def _default_memory(self) -> int:
        return torch.cuda.mem_get_info(self.device)[0] // 2 if self.device.type == "cuda" else DEFAULT_MEMORY

    def _plan_memory(self, memory: int, probe: Tensor) -> int:
        """How many images go at once, each one copy: what fits into ``memory``, one or more."""
        most = MAX_INPUTS.get(self.device.type, MAX_INPUTS["cpu"])
        if self._passes:
            self._passes.plan_memory(memory, most)
        return max(1, min(most, memory // forward_bytes(self._network, probe)))


@dataclass(frozen=True)
class _Shared:
    """What the scores of some images are functions of, each piece once.

    Attributes:
        norms, draws: by kind and by source.
        logits: clean ones, float64 (B, C).
        features: what the head makes them of, float64 (B, d); None where nobody needs it.
    """

    norms: dict[Kind, ClassNorms]
    draws: dict[str, Tensor]
    logits: Tensor
    features: Tensor | None


def _are_pixels(images: Tensor) -> bool:
    return images.is_floating_point() or images.dtype == torch.uint8
