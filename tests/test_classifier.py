"""Loading, preprocessing and the fingerprint."""

from __future__ import annotations

import hashlib
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
        ({"spec": "nonsense"}, "give torchvision:NAME.* or package.module:factory$"),
        ({"spec": "resnet50"}, r"\(did you mean torchvision:resnet50\?\)"),
        ({"spec": "resnet50.a1_in1k"}, r"\(did you mean timm:resnet50.a1_in1k\?\)"),
        ({"spec": "nets.mine.build"}, r"\(did you mean nets.mine:build\?\)"),
        ({"spec": "s3://bucket/model.PTH"}, "a file of weights is for --weights"),
        ({"spec": "runs/model.safetensors"}, "a file of weights is for --weights"),
        ({"spec": "microsoft/resnet-50"}, "a network of Hugging Face's hub takes a factory"),
        (
            {"spec": "torchvision:resnet1800"},
            r"no such classification model in torchvision.models \(did you mean resnet1\d+\?\)",
        ),
        ({"spec": "torchvision:resnet18"}, "no weights; add @DEFAULT"),
        ({"spec": "torchvision:resnet18@OLD"}, "no such weights; there are IMAGENET1K_V1"),
        ({"spec": "timm:resnet1800"}, r"timm knows no such model \(did you mean resnet\w+\?\)"),
        ({"spec": "no_such_package.module:factory"}, "no module no_such_package"),
        ({"spec": f"{__name__}:absent"}, "has no 'absent'"),
        ({"spec": BARE}, "image size is unknown; give --image-size"),
        ({"spec": BARE, "image_size": 8, "channels": 1}, r"does not take .*\(1, 8, 8\)"),
        ({"spec": TINY, "transform": f"{__name__}:TINY"}, "is a str, not a function of an image"),
        ({"spec": TINY, "transform": "no_such_module:invert"}, "no module no_such_module"),
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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(30, 30), (30, 47), (51, 30), (24, 24), (24, 60), (29, 31), (90, 61)])
def test_a_picture_of_any_size_is_resized_and_cropped(size: tuple[int, int], interpolation: str) -> None:
    """Those whose shorter side is that of the resize already are cropped alone, without a pixel changed."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    mode = transforms.InterpolationMode(interpolation)
    steps = transforms.Compose([transforms.Resize(30, mode, antialias=True), transforms.CenterCrop(24)])
    wanted = torch.from_numpy(np.asarray(steps(image)) / 255).permute(2, 0, 1).float()
    got = Classifier(bare(), 24, resize_size=30, interpolation=interpolation).preprocess(image)
    if min(size) == 30:
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-7)
    # Else the crop is taken from inside the resampling, which sees nothing beyond its edges.
    assert float((got - wanted)[:, 3:-3, 3:-3].abs().mean()) < 1 / 255


def test_a_squashed_picture_of_the_size_to_resize_to_is_cropped() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    got = Classifier(bare(), 24, resize_size=30, crop_mode="squash").preprocess(Image.fromarray(pixels))
    torch.testing.assert_close(got, torch.from_numpy(pixels[3:27, 3:27]).permute(2, 0, 1).float() / 255)


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


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest", "lanczos"])
def test_pictures_are_resized_by_the_filter_asked_for(interpolation: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    classifier = Classifier(bare(), 16, interpolation=interpolation)
    wanted = np.asarray(image.resize((16, 16), Image.Resampling[interpolation.upper()]), dtype=np.float32) / 255
    torch.testing.assert_close(classifier.preprocess(image), torch.from_numpy(wanted).permute(2, 0, 1))


def test_squashed_pictures_keep_their_edges() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    classifier = Classifier(bare(), (16, 12), crop_mode="squash", interpolation="bicubic")
    wanted = np.asarray(image.resize((12, 16), Image.Resampling.BICUBIC), dtype=np.float32) / 255
    torch.testing.assert_close(classifier.preprocess(image), torch.from_numpy(wanted).permute(2, 0, 1))


def test_the_size_tells_the_channels_and_both_must_agree() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    assert Classifier(network, (1, 6, 8)).channels == 1
    assert Classifier(network, (6, 8), channels=np.int64(1)).channels == 1
    with pytest.raises(UsageError, match=r"image size \(1, 6, 8\): 1 channels, but channels says 3"):
        Classifier(network, (1, 6, 8), channels=3)


def test_a_mean_on_the_scale_to_255_is_refused() -> None:
    with pytest.raises(UsageError, match="pixels are in \\[0, 1\\] here; divide mean and std by 255"):
        Classifier(bare(), 8, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))


def test_a_network_without_weights_is_refused() -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(UsageError, match=r"has a lazy layer without weights, 1.weight"):
        Classifier(lazy, 8)
    with torch.device("meta"):
        empty = bare()
    with pytest.raises(UsageError, match=r"has no weights: 0.weight is on the meta device"):
        Classifier(empty, 8)


class Shown(nn.Module):
    """Shows a function, as ``repr`` gives it: with its address."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.function = bare(), lambda x: x

    def extra_repr(self) -> str:
        return f"{self.function} {object()}"

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_addresses_in_memory_are_not_in_the_fingerprint() -> None:
    network, kept = Shown(), []
    prints = {Classifier(network, 8).fingerprint for _ in range(3) if kept.append(object()) is None}
    assert len(prints) == 1


def test_quantised_networks_have_a_fingerprint_of_their_weights() -> None:
    def quantised(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
        return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, torch.qint8)

    prints = [Classifier(quantised(seed), 8).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_the_fingerprint_is_what_it_was_where_nothing_new_is_asked_for() -> None:
    known = (Classifier(bare(), 8).network_fingerprint, "", ((8, 8), None, 3, (0.0,) * 3, (1.0,) * 3))
    assert Classifier(bare(), 8).fingerprint == hashlib.sha256(repr(known).encode()).hexdigest()
    others = [{"interpolation": "bicubic"}, {"crop_mode": "squash"}, {"scaled_jpeg": True}, {"resize_size": 9}]
    assert len({Classifier(bare(), 8, **other).fingerprint for other in [{}, *others]}) == 5


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
