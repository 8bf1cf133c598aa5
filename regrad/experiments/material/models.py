"""The networks of the tables: pre-trained ones, and those that a recipe trains here."""

from __future__ import annotations

from dataclasses import dataclass

import safetensors.torch
import torch
from torch import nn

from regrad import Classifier, storage
from regrad.experiments.material.packs import Packs
from regrad.models.training import progress, train_network
from regrad.reading.memory import load_labelled


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, on a pack of labelled images: see :func:`regrad.models.training.train_network`."""

    pack: str
    epochs: int = 3
    limit: int | None = None
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Model:
    """A network under one name.

    Attributes:
        title: as tables call it.
        spec: as for ``--model``.
        weights: a file of the data folder, for a network that was trained elsewhere.
        recipe: for one that is trained here, once for each seed; neither where the spec brings its weights.
        fit_pack: labelled training images for ``laplace``.
    """

    title: str
    spec: str
    fit_pack: str
    weights: str | None = None
    recipe: Recipe | None = None

    @property
    def seeds(self) -> str:
        """What a seed is of."""
        return "training" if self.recipe else "noise"


def _trained(title: str, spec: str, set_name: str, part: str = "train", **recipe: int) -> Model:
    training = f"{set_name}-{part}.parquet"
    return Model(title, f"regrad.networks:{spec}", training, recipe=Recipe(training, **recipe))


def _published(title: str, name: str, training: str) -> Model:
    return Model(title, f"regrad.networks:{name.replace('-', '_')}", training, weights=f"weights/{name}.safetensors")


MODELS = {
    "mnist-cnn": _trained("MNIST, standard CNN", "mnist_cnn", "mnist"),
    "fmnist-cnn": _trained("FMNIST, standard CNN", "mnist_cnn", "fmnist"),
    "mnist-cnn-quick": _trained("MNIST, standard CNN, quick", "mnist_cnn", "mnist", epochs=2, limit=3000),
    "mnist-cnn-short": _trained("MNIST, standard CNN, short training", "mnist_cnn", "mnist", epochs=1, limit=20_000),
    "mnist-vit": _trained("MNIST, small ViT", "mnist_vit", "mnist", epochs=4),
    "mnist-vit-quick": _trained("MNIST, small ViT, quick", "mnist_vit", "mnist", epochs=2, limit=3000),
    "svhn-cnn": Model(
        "SVHN, CNN", "regrad.networks:svhn_pooled", "svhn-train.parquet", weights="weights/svhn-cnn.safetensors"
    ),
    "svhn-standard-cnn": _trained("SVHN, standard CNN", "svhn_cnn", "svhn", "pool", epochs=6),
    "resnet20-cifar10": _published("C10, ResNet-20", "resnet20-cifar10", "cifar10-train.parquet"),
    "densenet100-cifar10": _published("C10, DenseNet-BC-100", "densenet100-cifar10", "cifar10-train.parquet"),
    "efficientnet-lite0": Model(
        "ImageNet, EfficientNet-Lite0", "regrad.networks:efficientnet_lite0", "imagenet-train.parquet"
    ),
    "densenet100-cifar100": _published("C100, DenseNet-BC-100", "densenet100-cifar100", "cifar100-trainsubset.parquet"),
}


def weights(name: str, seed: int, packs: Packs, folder: str) -> str | None:
    """URI of the weights of a network, made first where they are not in ``folder`` yet; None where its spec has them.

    Args:
        seed: of the training; published weights are the same for all.
        packs: where published weights and training images are.
        folder: where weights that are made here are kept.
    """
    model = MODELS[name]
    if model.recipe is None:
        return packs.find(model.weights) if model.weights else None
    file = f"{name}-seed{seed}.safetensors"
    uri = storage.join(folder, file)
    if file not in storage.list_files(folder, ".safetensors"):
        network = _train(name, model, seed, packs)
        storage.write_atomically(uri, safetensors.torch.save(network.state_dict()))
    return uri


def _train(name: str, model: Model, seed: int, packs: Packs) -> nn.Module:
    recipe = model.recipe
    assert recipe is not None
    torch.manual_seed(seed)
    classifier = Classifier.load(model.spec)
    images, labels = load_labelled([packs.find(recipe.pack)], classifier, recipe.limit)
    inputs = classifier.normalize(images)
    with progress(f"training {name}, seed {seed}", recipe.epochs, len(inputs)) as report:
        train_network(classifier.network, inputs, labels, recipe.epochs, 64, recipe.learning_rate, seed, report)
    return classifier.network
