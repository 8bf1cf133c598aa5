"""What scores may know of the training data: moments of the last layer's input h, and a sample of it.

Of n images with features h_i and labels y_i: how many of each class there are, sum_i h_i of each, sum_i h_i h_i^T, and
some of the h_i themselves. They are added up batch by batch; what is made of them (a covariance, a percentile, ...) is
made once, when a score first asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regrad.errors import UsageError
from regrad.network.copies import floating_type, plain_attention, private_copy
from regrad.network.head import Head, HeadInput, find_head
from regrad.precision import computing
from regrad.scores.state import State

SAMPLE = 10_000  # features that are kept as they are
Made = TypeVar("Made")


class FeatureStatistics:
    """Statistics of training features, and the layer that they are the input of.

    Args:
        state: from :func:`fit_statistics`.
        head: the last layer.

    Attributes:
        counts: images of each class, float64 (C,).
        sums: sum of their features, float64 (C, d).
        products: sum of h h^T over all images, float64 (d, d).
        sample: features of some images drawn at random, or of all if they are few, float64 (m, d).
    """

    def __init__(self, state: State, head: Head) -> None:
        fits = state["sums"].shape == head.weight.shape
        if not fits:
            raise UsageError("the statistics of --fit-data are of another network; fit them again")
        values = {name: value.to(head.weight.device, torch.float64) for name, value in state.items()}
        self.counts, self.sums, self.products = (values[name] for name in ("counts", "sums", "products"))
        self.sample, self.head = values["sample"], head
        self._made: dict[Any, Any] = {}

    def made(self, function: Callable[[FeatureStatistics], Made]) -> Made:
        """``function(self)``, computed once."""
        if function not in self._made:
            self._made[function] = function(self)
        kept: Made = self._made[function]
        return kept

    @property
    def images(self) -> float:
        """n, all classes together."""
        return float(self.counts.sum())

    @property
    def mean(self) -> Tensor:
        """The mean of all features, (d,)."""
        return self.sums.sum(0) / self.images

    @property
    def class_means(self) -> Tensor:
        """The means of the classes that have images, (C', d)."""
        there = self.counts > 0
        return self.sums[there] / self.counts[there, None]

    def second_moment(self, origin: Tensor) -> Tensor:
        """The mean of (h - origin) (h - origin)^T, (d, d)."""
        cross = torch.outer(origin, self.mean)
        return self.products / self.images - cross - cross.T + torch.outer(origin, origin)


@torch.no_grad()
@computing("float32")
def fit_statistics(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device) -> State:
    """The statistics of the features of ``batches``, as tensors that can be stored.

    Args:
        network: as pre-trained; a copy is made.
        batches: what the network receives, (n, channels, H, W), and class indices, int64 (n,), a batch at a time.
        device: where to compute.

    Raises:
        UsageError: the logits come from no Linear layer, or there is no image.
    """
    own = private_copy(network).to(device)
    dtype, read, order = floating_type(own), None, torch.Generator().manual_seed(0)
    state: State = {}
    places = torch.zeros(0, dtype=torch.float64)  # of the sample, drawn at random: the smallest are kept
    for inputs, labels in batches:
        x = inputs.to(device, dtype)
        if read is None:
            read = _reader(own, x)
            classes, width = read.layer.weight.shape
            state = {
                "counts": torch.zeros(classes, dtype=torch.float64),
                "sums": torch.zeros(classes, width, dtype=torch.float64),
                "products": torch.zeros(width, width, dtype=torch.float64),
                "sample": torch.zeros(0, width),
            }
        with plain_attention():
            features = read(x)[1].cpu()
        state["counts"] += torch.bincount(labels, minlength=len(state["counts"]))
        state["sums"].index_add_(0, labels, features)
        state["products"] += features.T @ features
        drawn = torch.cat([places, torch.rand(len(features), generator=order, dtype=torch.float64)])
        together = torch.cat([state["sample"], features.float()])
        places, kept = drawn.topk(min(SAMPLE, len(drawn)), largest=False)
        state["sample"] = together[kept]
    if not state:
        raise UsageError("--fit-data: holds no image")
    return state


def _reader(network: nn.Module, x: Tensor) -> HeadInput:
    name = find_head(network, x[:2])
    if name is None:
        raise UsageError(
            f"--fit-data: the logits of {type(network).__name__} come from no Linear layer whose input could be kept"
        )
    return HeadInput(network, name)
