"""Loading, preprocessing and the fingerprint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as transforms
from PIL import Image
from torch import Tensor, nn

from regrad.classifier import Classifier
from regrad.errors import UsageError


def tiny() -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    return network, {"image_size": 8, "mean": 0.5, "std": (0.5, 0.4, 0.3), "class_names": ["cat", "dog"]}


def bare() -> nn.Module:
    return tiny()[0]


def invert(image: Tensor) -> Tensor:
    return 1 - image


def headless() -> tuple[nn.Module, dict[str, Any]]:
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), {"image_size": 8}


def always_the_same() -> tuple[nn.Module, dict[str, Any]]:
    return SHARED, {"image_size": 8}


TINY, BARE, HEADLESS = f"{__name__}:tiny", f"{__name__}:bare", f"{__name__}:headless"
SHARED = bare().eval()


def test_a_factory_says_what_its_network_needs() -> None:
    classifier = Classifier.load(TINY)
    assert classifier.image_size == (8, 8)
    assert classifier.mean == (0.5, 0.5, 0.5)
    assert classifier.std == (0.5, 0.4, 0.3)
    assert classifier.class_names == ("cat", "dog")
    assert classifier.num_classes == 2
    assert not classifier.network.training


def test_arguments_override_the_factory() -> None:
    classifier = Classifier.load(TINY, image_size=(6, 9), mean=(0.1, 0.2, 0.3), std=1.0)
    assert (classifier.image_size, classifier.mean, classifier.std) == ((6, 9), (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spec": "nonsense"}, "give torchvision:NAME"),
        ({"spec": "torchvision:resnet1800"}, "no such classification model"),
        ({"spec": "torchvision:resnet18"}, "no weights; add @DEFAULT"),
        ({"spec": "torchvision:resnet18@OLD"}, "no such weights; there are IMAGENET1K_V1"),
        ({"spec": "timm:resnet1800"}, "timm knows no such model"),
        ({"spec": "no_such_package.module:factory"}, "no module no_such_package"),
        ({"spec": f"{__name__}:absent"}, "has no 'absent'"),
        ({"spec": BARE}, "image size is unknown; give --image-size"),
        ({"spec": BARE, "image_size": 8, "channels": 1}, r"does not take .*\(1, 8, 8\)"),
        ({"spec": TINY, "mean": (0.1, 0.2)}, "mean has 2 numbers for 3 channels"),
        ({"spec": TINY, "std": 0.0}, "deviation must be positive"),
        ({"spec": TINY, "temperature": 0.0}, "temperature 0.0: must be a positive number"),
        ({"spec": HEADLESS, "temperature": 2}, "temperature 2: the logits of .*:headless come from no Linear layer"),
        ({"spec": TINY, "weights": "/no/such/file.safetensors"}, "weights /no/such/file.safetensors: no such file"),
    ],
)
def test_bad_usage_is_one_clear_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Classifier.load(**arguments)
    assert "\n" not in str(caught.value)


def test_preprocessing_is_torchvisions_resize_and_centre_crop() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 61, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    classifier = Classifier.load(TINY, image_size=24)
    steps = transforms.Compose([transforms.Resize(24), transforms.CenterCrop(24)])
    wanted = torch.from_numpy(np.asarray(steps(image)) / 255).permute(2, 0, 1).float()
    got = classifier.preprocess(image)
    assert got.shape == (3, 24, 24)
    assert float((got - wanted).abs().max()) < 4 / 255  # the crop is taken from inside the resampling


def test_an_image_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    got = Classifier.load(TINY).preprocess(Image.fromarray(pixels))
    torch.testing.assert_close(got, torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16", "LA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    grey = np.tile(np.linspace(0, 255, 8, dtype=np.uint8), (8, 1))
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    got = Classifier.load(TINY).preprocess(image)
    assert got.shape == (3, 8, 8)
    assert float(got[:, 0, -1].min()) > 0.9
    assert float(got[:, 0, 0].max()) < 0.1


def test_a_one_pixel_picture_and_a_very_wide_one_are_scaled() -> None:
    classifier = Classifier.load(TINY)
    assert classifier.preprocess(Image.new("RGB", (1, 1), "white")).mean() == 1
    assert classifier.preprocess(Image.new("L", (20000, 2), 128)).shape == (3, 8, 8)


def test_a_transform_is_applied_and_part_of_the_fingerprint() -> None:
    plain, inverted = Classifier.load(TINY), Classifier.load(TINY, transform=f"{__name__}:invert")
    white = Image.new("RGB", (8, 8), "white")
    assert plain.preprocess(white).mean() == 1
    assert inverted.preprocess(white).mean() == 0
    assert plain.fingerprint != inverted.fingerprint
    assert plain.network_fingerprint == inverted.network_fingerprint


def test_the_fingerprint_changes_with_what_scores_depend_on() -> None:
    def prints(**changes: Any) -> str:
        return Classifier.load(TINY, **changes).fingerprint

    other = Classifier.load(TINY)
    with torch.no_grad():
        other.network[4].bias[0] += 1e-6
    distinct = {prints(), prints(image_size=9), prints(mean=0.4), prints(std=0.4), other.fingerprint}
    assert len(distinct) == 5
    assert prints() == prints()


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_a_temperature_divides_the_logits_and_nothing_else(temperature: float) -> None:
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        before = SHARED(images)
        divided = Classifier.load(f"{__name__}:always_the_same", temperature=temperature)
        torch.testing.assert_close(divided.network(images), before / temperature)
        torch.testing.assert_close(SHARED(images), before, rtol=0, atol=0)
    assert divided.fingerprint != Classifier.load(f"{__name__}:always_the_same", temperature=1).fingerprint


def test_making_a_classifier_leaves_the_network_as_it_was() -> None:
    network = bare().train()
    network[1].eval()
    Classifier(network, 8)
    assert network.training
    assert network[0].training
    assert not network[1].training
    assert network[1].num_batches_tracked == 0
