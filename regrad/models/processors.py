"""What libraries' own preprocessing says: transformers' processors, timm's configurations, torchvision's transforms.

Size, mean and deviation are read off; that the images come out alike is for the classifier to try on a picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from regrad import storage, transforms
from regrad.errors import UsageError
from regrad.models import settings

Known = dict[str, Any]
Preprocess = Callable[[Image.Image], Tensor]

TIMM_KEYS = {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"}
_SHRUNK_BELOW = 384  # ConvNeXt's processor crops below, and squashes from there on
_NEARLY = 1e-4


def is_processor(value: Any) -> bool:
    """Whether ``value`` is a preprocessing that :func:`of_processor` reads."""
    return _is_preset(value) or _is_transform(value) or _is_hugging_face(value) or hasattr(value, "image_processor")


def of_processor(value: Any) -> tuple[Known, Preprocess | None, list[str]]:
    """What a preprocessing says as arguments of the classifier, itself as a function of a picture, and notes."""
    if hasattr(value, "image_processor"):  # of a processor of text and images
        value = value.image_processor
    if isinstance(getattr(value, "data_config", None), Mapping):  # transformers around timm
        return of_timm(value.data_config), None, []
    if _is_preset(value):
        return of_preset(value), lambda picture: torch.as_tensor(value(picture)), []
    return _of_transform(value) if _is_transform(value) else _of_hugging_face(value)


def of_preset(preset: Any) -> Known:
    """What torchvision's ``weights.transforms()`` says."""
    return {
        "image_size": preset.crop_size[0],
        "resize_size": preset.resize_size[0],
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
        "interpolation": settings.interpolation(preset.interpolation),
    }


def of_timm(config: Mapping[str, Any]) -> Known:
    """What ``timm.data.resolve_model_data_config`` says, or as much of it as there is."""
    channels, height, width = config["input_size"]
    known: Known = {"image_size": (height, width), "channels": channels}
    known |= {name: tuple(config[name]) for name in ("mean", "std") if config.get(name) is not None}
    if share := config.get("crop_pct"):
        known["resize_size"] = math.floor(min(height, width) / share)
    if way := config.get("interpolation"):
        known["interpolation"] = settings.interpolation(way)
    if config.get("crop_mode") in settings.CROP_MODES:  # "border" differs where a picture is smaller than the crop
        known["crop_mode"] = config["crop_mode"]
    return known


def levels_apart(mine: Tensor, wanted: Tensor, std: tuple[float, ...]) -> float:
    """How far two normalised images are apart, in levels of 255 on average; a shift by a pixel counts as none.

    Libraries round where they crop in different ways.
    """
    inner = wanted[:, 1:-1, 1:-1]
    shifts = [(y, x) for y in range(3) for x in range(3)]
    moved = [mine[:, y : y + inner.shape[1], x : x + inner.shape[2]] for y, x in shifts]
    scale = 255 * mine.new_tensor(std)[:, None, None]
    return min(float(((image - inner).abs() * scale).mean()) for image in moved)


def _is_preset(value: Any) -> bool:
    return all(hasattr(value, name) for name in ("crop_size", "resize_size", "mean", "std", "interpolation"))


def _is_transform(value: Any) -> bool:
    """One of torchvision's, a ``Compose``, or several in a list or, for TorchScript, in a ``Sequential``."""
    steps = list(value) if isinstance(value, nn.Sequential | list) else [value]
    return bool(steps) and all(map(_kinds, steps))


def _kinds(step: Any) -> list[str]:
    """The names of torchvision's classes that ``step`` is of, its own first."""
    return [kind.__name__ for kind in type(step).__mro__ if kind.__module__.startswith("torchvision.transforms")]


def _of_transform(transform: Any) -> tuple[Known, Preprocess | None, list[str]]:
    """Steps that a validation has: what they say, checked on a black and a white picture."""
    known: Known = {}
    for step in _steps(transform):
        said = next((_STEPS[kind](step) for kind in _kinds(step) if kind in _STEPS), None)
        if said is None:
            raise UsageError(
                f"the factory's transforms have a step that is not understood: {step}; give those of a validation, "
                f"which are {', '.join(_STEPS)} to RGB; what else there is belongs into a function (transform)"
            )
        known |= said

    def call(picture: Image.Image) -> Tensor:
        value: Any = picture
        if isinstance(transform, nn.Sequential):  # which takes no pictures
            value = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        for step in transform if isinstance(transform, list) else [transform]:
            value = step(value)
        return torch.as_tensor(value)

    try:
        return known | _scale_of(call, known.get("mean", [0.0]), known.get("std", [1.0])), call, []
    except Exception as error:
        raise UsageError(
            f"the factory's transforms make no normalised tensor of a picture: {storage.reason(error)}; end them with "
            "ToTensor() and Normalize(mean, std)"
        ) from error


def _steps(transform: Any) -> Iterator[Any]:
    if isinstance(transform, nn.Sequential | list):
        inner = list(transform)
    elif "Compose" in _kinds(transform):
        inner = transform.transforms
    else:
        yield transform
        return
    for step in inner:
        yield from _steps(step)


def _of_resize(step: Any) -> Known:
    sides = np.ravel(step.size).astype(int).tolist()
    known: Known = {"image_size": (sides[0], sides[-1]), "interpolation": settings.interpolation(step.interpolation)}
    if len(sides) == 2:
        known["crop_mode"] = "squash"
    if sides[0] == sides[-1]:
        known["resize_size"] = sides[0]
    return known


def _of_crop(step: Any) -> Known:
    height, width, _ = settings.image_size(step.size)
    return {"image_size": (height, width)}


def _says_nothing(step: Any) -> Known:
    return {}


def _of_lambda(step: Any) -> Known | None:
    """Nothing, where it leaves an RGB picture as it is: most convert others to that."""
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    try:
        made = step(Image.fromarray(pixels))
    except Exception:  # it takes tensors
        return None
    return {} if isinstance(made, Image.Image) and np.array_equal(np.asarray(made), pixels) else None


# What is understood of a Compose, None where a step is not; the rest of what they do shows where a picture is compared.
_STEPS: dict[str, Callable[[Any], Known | None]] = {
    "Resize": _of_resize,
    "CenterCrop": _of_crop,
    "Grayscale": _says_nothing,
    "RGB": _says_nothing,
    "ToTensor": _says_nothing,
    "PILToTensor": _says_nothing,
    "ToImage": _says_nothing,
    "ToPureTensor": _says_nothing,
    "ConvertImageDtype": _says_nothing,
    "ToDtype": _says_nothing,
    "Normalize": lambda step: {"mean": np.ravel(step.mean), "std": np.ravel(step.std)},
    "Lambda": _of_lambda,
}


def _is_hugging_face(value: Any) -> bool:
    return hasattr(value, "image_mean") or isinstance(getattr(value, "data_config", None), Mapping)


def _of_hugging_face(processor: Any) -> tuple[Known, Preprocess | None, list[str]]:
    known = _sizes(processor)
    if (resample := getattr(processor, "resample", None)) is not None:
        known["interpolation"] = settings.interpolation(resample)
    if getattr(processor, "do_flip_channel_order", None):
        known["transform"] = transforms.reverse_channels
    mean, std = _scale(processor)
    call, notes = _callable(processor)
    scale = {"mean": tuple(mean), "std": tuple(std)} if call is None else _scale_of(call, mean, std)
    return known | scale, call, notes


def _scale_of(call: Preprocess, mean: Sequence[float], std: Sequence[float]) -> Known:
    """Channels, mean and deviation of ``call``: those that are told, unless black and white come out otherwise."""
    mean, std = [float(value) for value in mean], [float(value) for value in std]
    ends = [call(Image.new("RGB", (512, 512), grey))[:, 0, 0].double() for grey in ("black", "white")]
    measured = [float(value) for value in 1 / (ends[1] - ends[0])]
    if _differ(std, measured) or _differ(mean, [-float(b) * s for b, s in zip(ends[0], measured, strict=True)]):
        std = [round(value, 6) for value in measured]
        mean = [round(-float(b) * s, 6) for b, s in zip(ends[0], std, strict=True)]
    return {"channels": len(measured), "mean": tuple(mean), "std": tuple(std)}


def _sizes(processor: Any) -> Known:
    """Size of the image, and how pictures are brought to it."""
    resized, cropped = (_sides(getattr(processor, name, None)) for name in ("size", "crop_size"))
    if getattr(processor, "do_center_crop", False) and cropped:
        known: Known = {"image_size": cropped}
    elif resized:
        known = {"image_size": (max(resized), max(resized)) if _shortest(processor) else resized}
    else:
        return {}
    if getattr(processor, "do_resize", True) in (False, None) or not resized:
        return known
    share = getattr(processor, "crop_pct", None)
    uncropped = getattr(processor, "do_center_crop", None) is None
    if not _shortest(processor) or (share and uncropped and resized[0] >= _SHRUNK_BELOW):
        known["crop_mode"] = "squash"
    elif share:
        resized = (int(resized[0] / share),) * 2
    if resized[0] == resized[1]:
        known["resize_size"] = resized[0]
    return known


def _shortest(processor: Any) -> bool:
    return not {"height", "width"} <= _told(getattr(processor, "size", None)).keys()


def _sides(size: Any) -> tuple[int, int] | None:
    told = _told(size)
    if {"height", "width"} <= told.keys():
        return int(told["height"]), int(told["width"])
    side = told.get("shortest_edge")
    return None if side is None else (int(side), int(side))


def _told(size: Any) -> dict[str, Any]:
    """A size as processors have them: a number, a pair, a dict, or an object with the dict's keys."""
    if size is None or isinstance(size, bool):
        return {}
    if isinstance(size, Mapping) or hasattr(size, "shortest_edge"):
        items = size.items() if isinstance(size, Mapping) else vars(size).items()
        return {key: value for key, value in items if value is not None}
    height, width, _ = settings.image_size(size)
    return {"height": height, "width": width}


def _scale(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and deviation on the [0, 1] scale, from (255 f x - offset - m) / s."""
    factor = 255 * getattr(processor, "rescale_factor", 1 / 255) if getattr(processor, "do_rescale", True) else 255.0
    offset = float(bool(getattr(processor, "rescale_offset", False)))
    mean, std = [0.0], [1.0]
    if getattr(processor, "do_normalize", True):
        mean, std = (np.ravel(getattr(processor, name)).astype(float).tolist() for name in ("image_mean", "image_std"))
    if math.isclose(factor, 1.0) and not offset:
        return mean, std
    return [(m + offset) / factor for m in mean], [s / factor for s in std]


def _callable(processor: Any) -> tuple[Preprocess | None, list[str]]:
    """The processor as a function of a picture, and what to note where it cannot be called."""
    if not callable(processor):
        return None, []

    def call(picture: Image.Image) -> Tensor:
        images = processor(images=picture, return_tensors="pt")["pixel_values"]
        return torch.as_tensor(images)[0]

    try:
        shape = tuple(call(Image.new("RGB", (512, 512))).shape)
    except Exception as error:  # its own libraries may be missing
        return None, [f"its processor fails, only its attributes were read: {storage.reason(error)}"]
    return (call, []) if len(shape) == 3 else (None, [f"its processor gives {shape} of a picture, and was not tried"])


def _differ(a: list[float], b: list[float]) -> bool:
    a = a * len(b) if len(a) == 1 else a
    return len(a) != len(b) or any(abs(x - y) > _NEARLY for x, y in zip(a, b, strict=True))
