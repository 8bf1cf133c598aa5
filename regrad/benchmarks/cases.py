"""What is timed: networks, how many classes and copies, and the images that go through them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import PurePath

import torch
from torch import Tensor, nn

from regrad import perturb
from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.network.head import find_head
from regrad.network.probe import probe_images

SIGMA = 0.02


@dataclass(frozen=True)
class Case:
    """One classifier at one number of classes and copies.

    Attributes:
        spec: of the classifier, as for ``--model``.
        batch: images that go through at once.
        samples: N, noisy copies of each.
        classes: C; None for the classifier's own, other numbers get another head: see :func:`with_classes`.
        weights: URI; None for those of the spec.
        images: shards to take pictures from; none gives seeded blobs.
        trained: whether the spec brings trained weights; else its own are random.
    """

    name: str
    spec: str
    batch: int
    samples: int = 10
    classes: int | None = None
    weights: str | None = None
    images: tuple[str, ...] = ()
    trained: bool = False

    def classifier(self) -> Classifier:
        """The network with its preprocessing."""
        torch.manual_seed(0)
        classifier = Classifier.load(self.spec, weights=self.weights)
        if self.classes in (None, classifier.num_classes):
            return classifier
        probe = probe_images(1, classifier.channels, classifier.image_size)
        network = with_classes(classifier.network, self.classes, probe)
        return Classifier(
            network, classifier.image_size, mean=classifier.mean, std=classifier.std, channels=classifier.channels
        )

    def with_samples(self, samples: int) -> Case:
        """The same with N = ``samples`` and about as many inputs at once."""
        return replace(self, samples=samples, batch=max(1, self.batch * (self.samples + 1) // (samples + 1)))

    def describe(self, classifier: Classifier) -> str:
        """The case in words."""
        own = "trained weights" if self.trained else "random weights"
        weights = f"weights {PurePath(self.weights).name}" if self.weights else own
        height, width = classifier.image_size
        return (
            f"{self.name}, {height}x{width}, C = {classifier.num_classes}, N = {self.samples}, {weights}, "
            f"{self.batch} images at once"
        )


def copies_of(case: Case, classifier: Classifier, device: torch.device) -> Tensor:
    """What the network receives of the first images of the case's shards, or of blobs: (B, N+1, channels, H, W)."""
    if case.images:
        from regrad.reading.memory import load_images  # which reads with Arrow, and blobs need none

        images, _ = load_images(list(case.images), classifier, case.batch)
    else:
        images = probe_images(case.batch, classifier.channels, classifier.image_size)
    ids = [str(row) for row in range(len(images))]
    return perturb.noisy_copies(classifier.normalize(images), ids, case.samples, SIGMA, 0).to(device)


def with_classes(network: nn.Module, classes: int, probe: Tensor) -> nn.Module:
    """A copy of ``network`` whose last Linear layer has ``classes`` outputs: its own first ones, further ones random.

    Raises:
        UsageError: the logits do not come from a Linear layer of their own.
    """
    network = copy.deepcopy(network).eval()
    last = find_head(network, probe)
    if last is None:
        raise UsageError(
            f"{type(network).__name__}: its logits come from no Linear layer that could get {classes} outputs"
        )
    parent, _, own = last.rpartition(".")
    replaced = network.get_submodule(last)
    assert isinstance(replaced, nn.Linear)
    head = nn.Linear(replaced.in_features, classes, bias=replaced.bias is not None)
    with torch.no_grad():
        for name, values in head.named_parameters():
            values[: replaced.out_features] = getattr(replaced, name)[:classes]
    setattr(network.get_submodule(parent), own, head)
    return network


CASES = {
    case.name: case
    for case in (
        Case("resnet18", "regrad.networks:resnet18_cifar10", 8),
        Case("resnet20", "regrad.networks:resnet20_cifar10", 8),
        Case("resnet18-100", "regrad.networks:resnet18_cifar100", 8),
        Case("resnet50", "regrad.networks:resnet50", 2),
        Case("densenet100-100", "regrad.networks:densenet100_cifar100", 4),
        Case("efficientnet-lite0", "regrad.networks:efficientnet_lite0", 2, trained=True),
        Case("vit-s", "regrad.networks:vit_small", 2),
        Case("vit-s-100", "regrad.networks:vit_small_cifar100", 4),
    )
}
