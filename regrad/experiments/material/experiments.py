"""What is set against what: a network, the set that it knows, one that it does not, and the paper's name for it."""

from __future__ import annotations

from dataclasses import dataclass

from regrad.experiments.material.image_sets import IMAGE_SETS
from regrad.experiments.material.models import MODELS


@dataclass(frozen=True)
class Experiment:
    """A network that knows one set, against another set.

    Attributes:
        model, known, unknown: names of :data:`regrad.experiments.material.models.MODELS` and of image sets.
        paper: whether it is one of the paper's; its networks for CIFAR are others all the same.
    """

    model: str
    known: str
    unknown: str
    paper: bool = False

    @property
    def name(self) -> str:
        """As the paper writes it."""
        return f"{IMAGE_SETS[self.known].title}→{IMAGE_SETS[self.unknown].title}"

    @property
    def group(self) -> str:
        """The network, as tables call it."""
        return MODELS[self.model].title


def against(model: str, known: str, *unknown: str, paper: bool = False) -> tuple[Experiment, ...]:
    """One network and what it knows, against several sets."""
    return tuple(Experiment(model, known, each, paper) for each in unknown)


SEPARATION = (
    *against("mnist-cnn", "mnist", "omniglot", "fmnist", paper=True),
    *against("fmnist-cnn", "fmnist", "mnist", "omniglot"),
    *against("resnet20-cifar10", "cifar10", "cifar100-not-cifar10", "tinyimagenet-not-cifar10", "fmnist"),
    *against("resnet20-cifar10", "cifar10", "svhn", "lsun", paper=True),
    *against("densenet100-cifar10", "cifar10", "cifar100-not-cifar10", "tinyimagenet-not-cifar10"),
    *against("svhn-cnn", "svhn", "cifar10", "cifar100", paper=True),
    *against("densenet100-cifar100", "cifar100", "cifar10-not-cifar100", "tinyimagenet-not-cifar100"),
    *against("densenet100-cifar100", "cifar100", "svhn", "lsun", paper=True),
)
#: The network that is trained on a part of SVHN's images knows the rest of them.
SVHN_TRAINED = against("svhn-standard-cnn", "svhn-held", "cifar10", "cifar100", paper=True)
IMAGENET = against("efficientnet-lite0", "imagenet", "textures-not-cobwebbed")
ARCHITECTURE = (
    *against("mnist-vit", "mnist", "omniglot", "fmnist"),
    *against("mnist-cnn-short", "mnist", "omniglot", "fmnist"),
    *against("mnist-cnn", "mnist", "omniglot", "fmnist"),
)
