"""Libraries' own preprocessing, read off and compared with on pictures."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image, ImageOps
from torch import Tensor, nn
from torchvision.transforms import transforms as v1
from torchvision.transforms import v2

from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.models import processors
from tests.models.test_factory import load


class Processor:
    """As transformers' image processors: attributes, and a call that carries them out, here by torchvision."""

    def __init__(self, **attributes: Any) -> None:
        known = {
            **{"do_resize": True, "size": {"height": 24, "width": 24}, "resample": 2},
            **{"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True},
            **{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        }
        vars(self).update(known | attributes)

    def __call__(self, images: Image.Image, return_tensors: str = "pt") -> dict[str, Tensor]:
        own = SimpleNamespace(**vars(self))
        filters = {2: Image.Resampling.BILINEAR, 3: Image.Resampling.BICUBIC}
        if own.do_resize and "height" in own.size:
            images = images.resize((own.size["width"], own.size["height"]), filters[own.resample])
        elif own.do_resize:
            scale = int(own.size["shortest_edge"] / getattr(own, "crop_pct", 1)) / min(images.size)
            images = images.resize(
                (int(images.width * scale + 1e-6), int(images.height * scale + 1e-6)), filters[own.resample]
            )
        if getattr(own, "do_center_crop", False):
            images = torchvision.transforms.functional.center_crop(
                images, [own.crop_size["height"], own.crop_size["width"]]
            )
        pixels = torch.from_numpy(np.asarray(images)).permute(2, 0, 1).float()
        pixels = pixels.flip(0) if getattr(own, "do_flip_channel_order", False) else pixels
        pixels = (
            pixels * own.rescale_factor - float(getattr(own, "rescale_offset", False)) if own.do_rescale else pixels
        )
        if own.do_normalize:
            mean, std = (torch.tensor(values)[:, None, None] for values in (own.image_mean, own.image_std))
            pixels = (pixels - mean) / std
        return {"pixel_values": pixels[None]}


PROCESSORS = {
    "squashed, as ViT's": Processor(),
    "bicubic": Processor(resample=3),
    "resized and cropped, as ResNet's": Processor(
        size={"shortest_edge": 30}, do_center_crop=True, crop_size={"height": 24, "width": 24}
    ),
    "squashed and cropped, as DeiT's": Processor(
        size={"height": 30, "width": 30}, do_center_crop=True, crop_size={"height": 24, "width": 24}
    ),
    "by its share, as PoolFormer's": Processor(
        size={"shortest_edge": 24}, crop_pct=0.8, do_center_crop=True, crop_size={"height": 24, "width": 24}
    ),
    "blue, green, red, as MobileViT's": Processor(do_flip_channel_order=True, do_normalize=False),
    "from -1 to 1, as EfficientNet's": Processor(rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False),
    "not rescaled": Processor(do_rescale=False, image_mean=[127.0] * 3, image_std=[64.0] * 3),
}


def picture() -> Image.Image:
    """A smooth picture with some grain, not square."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((90, 70))
    return Image.fromarray(np.uint8(0.9 * np.asarray(coarse) + generator.integers(0, 20, (70, 90, 3))))


@pytest.mark.parametrize("name", PROCESSORS)
def test_pictures_come_out_as_the_processor_makes_them(name: str) -> None:
    processor = PROCESSORS[name]
    classifier = load((nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5)), processor))
    assert classifier.image_size == (24, 24)
    assert not classifier.notes
    wanted = processor(picture())["pixel_values"][0]
    got = classifier.normalize(classifier.preprocess(picture()))
    levels = ((got - wanted).abs() * torch.tensor(classifier.std)[:, None, None]).mean() * 255
    assert float(levels) < 2


def test_what_a_processor_does_to_pixels_goes_before_what_it_says() -> None:
    class Twice(Processor):  # as EfficientNet's, which divides by the deviation once more
        def __call__(self, images: Image.Image, return_tensors: str = "pt") -> dict[str, Tensor]:
            std = torch.tensor(self.image_std)[:, None, None]  # type: ignore[attr-defined]
            return {"pixel_values": super().__call__(images)["pixel_values"] / std}

    classifier = load((nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5)), Twice()))
    assert not classifier.notes
    assert classifier.mean == pytest.approx((0.5, 0.4, 0.3), abs=1e-5)
    assert classifier.std == pytest.approx((0.04, 0.09, 0.16), abs=1e-5)
    said = load((nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5)), Processor()))
    assert (said.mean, said.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))  # where they agree, to the last digit


def test_a_crop_is_done_where_the_processor_says_so() -> None:
    told = SimpleNamespace(size={"height": 8, "width": 8}, crop_size={"height": 6, "width": 6}, image_mean=[0.5])
    for crops, wanted in ((None, (8, 8)), (False, (8, 8)), (True, (6, 6))):
        known, *_ = processors.of_processor(SimpleNamespace(**vars(told), image_std=[0.5], do_center_crop=crops))
        assert known["image_size"] == wanted
    assert processors.of_processor(SimpleNamespace(**vars(told), image_std=[0.5]))[0]["image_size"] == (8, 8)


def test_attributes_alone_tell_too() -> None:
    told = SimpleNamespace(size={"height": 8, "width": 6}, image_mean=[0.5, 0.4, 0.3], image_std=(0.2, 0.3, 0.4))
    known, call, _ = processors.of_processor(told)
    assert call is None
    assert known == {"image_size": (8, 6), "crop_mode": "squash", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    assert processors.of_processor(SimpleNamespace(image_processor=told)) == (known, None, [])


def test_what_a_processor_does_beside_is_said() -> None:
    class Blurring(Processor):
        def __call__(self, images: Image.Image, return_tensors: str = "pt") -> dict[str, Tensor]:
            return {"pixel_values": super().__call__(images)["pixel_values"].flip(-1)}

    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5))
    (note,) = load((network, Blurring())).notes
    assert "the processor of its library makes other images" in note
    assert not load((network, Blurring()), mean=0.5, std=0.5).notes  # of what the user says, it is no measure


def test_a_processor_that_fails_is_said() -> None:
    class Failing(Processor):
        def __call__(self, images: Image.Image, return_tensors: str = "pt") -> dict[str, Tensor]:
            raise ImportError("no torchvision")

    (note,) = load((nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 5)), Failing())).notes
    assert note.endswith("its processor fails, only its attributes were read: ImportError: no torchvision")


def test_torchvisions_presets_are_read() -> None:
    preset = torchvision.models.Swin_T_Weights.IMAGENET1K_V1.transforms()
    classifier = load((torchvision.models.swin_t(num_classes=5), preset))
    settled = classifier.preprocessing
    assert (settled.image_size, settled.resize_size, settled.interpolation) == (
        (224, 224),
        232,
        "bicubic",
    )
    assert not classifier.notes
    wanted = preset(picture())
    assert float((classifier.normalize(classifier.preprocess(picture())) - wanted).abs().mean()) < 0.03


def of_timm() -> Any:
    return timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg={"input_size": (3, 48, 48)}))


MEAN, STD = (0.5, 0.4, 0.3), (0.24703225141, 0.3, 0.4)
NORMALIZE = v1.Normalize(MEAN, STD)
COMPOSED = {
    "resized and cropped": v1.Compose([v1.Resize(40), v1.CenterCrop(32), v1.ToTensor(), NORMALIZE]),
    "bicubic, nested": v1.Compose([v1.Compose([v1.Resize(40, 3), v1.CenterCrop((32, 24))]), v1.ToTensor(), NORMALIZE]),
    "squashed": v1.Compose([v1.Resize((32, 24)), v1.ToTensor(), NORMALIZE]),
    "squashed and cropped": v1.Compose([v1.Resize((40, 40)), v1.CenterCrop(32), v1.ToTensor(), NORMALIZE]),
    "not normalised": v1.Compose([v1.Resize((32, 32)), v1.ToTensor()]),
    "levels": v2.Compose([v2.Resize((32, 32)), v2.PILToTensor(), v2.ToDtype(torch.float32)]),
    "grey": v1.Compose([v1.Resize((32, 32)), v1.Grayscale(), v1.ToTensor(), v1.Normalize(0.5, 0.25)]),
    "version 2": v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(40),
            v2.CenterCrop(32),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5], [2]),
        ]
    ),
    "made RGB": v1.Compose([v1.Lambda(lambda p: p.convert("RGB")), v1.Resize((32, 32)), v1.ToTensor(), NORMALIZE]),
    "in a list": [v1.Resize(40), v1.Compose([v1.CenterCrop(32), v1.ToTensor()]), NORMALIZE],
    "for TorchScript": nn.Sequential(
        v1.Resize(40), v1.CenterCrop(32), v1.ConvertImageDtype(torch.float32), v1.Normalize(MEAN, STD)
    ),
    "version 2, made RGB": v2.Compose([v2.RGB(), v2.Resize((32, 32)), v2.ToImage(), v2.ToDtype(torch.float32, True)]),
    "timm's": of_timm(),
}


def carried_out(compose: Any) -> torch.Tensor:
    """What torchvision makes of a picture."""
    if isinstance(compose, nn.Sequential):
        return cast(torch.Tensor, compose(v2.functional.pil_to_tensor(picture())))
    return torch.as_tensor((v1.Compose(compose) if isinstance(compose, list) else compose)(picture()))


@pytest.mark.parametrize("compose", COMPOSED.values(), ids=COMPOSED.keys())
def test_torchvisions_transforms_are_read(compose: Any) -> None:
    wanted = carried_out(compose)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * len(wanted), 3))
    classifier = load((pooled, compose))
    assert not [note for note in classifier.notes if "processor" in note]
    got = classifier.normalize(classifier.preprocess(picture()))
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().mean() * classifier.std[0]) < 1e-3
    if NORMALIZE in getattr(compose, "transforms", ()):  # as told, to the last digit
        assert (classifier.mean, classifier.std) == (MEAN, STD)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([v1.RandomResizedCrop(32), v1.ToTensor()], "a step that is not understood: RandomResizedCrop(size=(32, 32)"),
        ([v1.Resize(32), v1.Lambda(abs), v1.ToTensor()], "a step that is not understood: Lambda()"),
        ([v1.Lambda(ImageOps.invert), v1.Resize(32), v1.ToTensor()], "a step that is not understood: Lambda()"),
        ([v1.Lambda(lambda p: p.convert("L")), v1.ToTensor()], "a step that is not understood: Lambda()"),
        ([v1.Resize(32), v1.CenterCrop(32)], "no normalised tensor of a picture"),
    ],
)
def test_other_transforms_are_named(steps: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        load((nn.Linear(3, 3), v1.Compose(steps)))


class Halved(v1.Compose):  # type: ignore[misc]
    """With something of its own."""

    def __call__(self, picture: Any) -> Any:
        return super().__call__(picture) / 2


@pytest.mark.parametrize("transform", [Halved([v1.ToTensor()]), [Halved([v1.ToTensor()])]])
def test_what_a_compose_of_its_own_kind_does_is_seen(transform: Any) -> None:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    assert load((pooled, transform, {"image_size": 32})).std == pytest.approx((2, 2, 2))


def test_one_transform_alone_is_read_too() -> None:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    classifier = load((pooled, v1.ToTensor(), {"image_size": 32}))
    wanted = v1.ToTensor()(Image.new("RGB", (32, 32), (0, 51, 255)))
    torch.testing.assert_close(
        classifier.normalize(classifier.preprocess(Image.new("RGB", (40, 40), (0, 51, 255)))), wanted
    )


def test_what_is_not_read_of_a_transform_is_said() -> None:
    compose = v1.Compose([v1.Resize(32), v1.ToTensor(), NORMALIZE])  # no crop: as high as the picture asks for
    classifier = load((nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)), compose))
    assert any("makes images of (3, 43, 32), not (3, 32, 32)" in note for note in classifier.notes)


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "convnext_nano.r384_in12k_ft_in1k", "vit_tiny_patch16_224"])
def test_timms_configurations_are_carried_out_as_timm_does(name: str) -> None:
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    known = processors.of_timm(config)
    side = known["image_size"][0]
    classifier = Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)), **known)
    wanted = timm.data.create_transform(**config)(picture())
    got = classifier.normalize(classifier.preprocess(picture()))
    assert got.shape == wanted.shape == (3, side, side)
    assert float((got - wanted).abs().mean()) < 0.03
