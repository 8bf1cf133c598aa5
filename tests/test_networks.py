"""The pre-trained networks are what their sources say: accuracy on a part of the real test sets."""

from __future__ import annotations

import pytest
import torch

from regrad import Classifier
from regrad.experiments.material.models import MODELS
from regrad.models.training import share_right
from regrad.networks import CifarDenseNet, CifarResNet
from regrad.reading.memory import load_labelled
from tests.data import data_path

IMAGES = 64  # the packs are in random order


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "test", "stated"),
    [
        ("resnet20-cifar10", "cifar10-test", 0.9173),
        ("densenet100-cifar10", "cifar10-test", 0.9454),
        ("densenet100-cifar100", "cifar100-test", 0.7506),
        ("svhn-cnn", "svhn-test", 0.9448),
        ("efficientnet-lite0", "imagenet-samples", 0.868),
    ],
)
def test_accuracy_is_the_one_stated_for_all_images(name: str, test: str, stated: float) -> None:
    model = MODELS[name]
    classifier = Classifier.load(model.spec, weights=str(data_path(model.weights)) if model.weights else None)
    images, labels = load_labelled([str(data_path(f"{test}.parquet"))], classifier, IMAGES)
    found = share_right(classifier.network.eval(), classifier.normalize(images), labels)
    assert found == pytest.approx(stated, abs=3 * (stated * (1 - stated) / IMAGES) ** 0.5)


def test_depth_is_a_parameter() -> None:
    x = torch.zeros(2, 3, 32, 32)
    counts = [sum(p.numel() for p in network.parameters()) for network in (CifarResNet(20), CifarDenseNet(100))]
    assert counts == [269_722, 769_162]  # as their sources count them
    for network in (CifarResNet(32, 7), CifarDenseNet(40, 12, 7)):
        assert network.eval()(x).shape == (2, 7)
    for build, depth in ((CifarResNet, 21), (CifarDenseNet, 101)):
        with pytest.raises(ValueError, match=f"depth {depth} is not 6 n"):
            build(depth)
