"""Sizes, means and class names in the forms that people and libraries have them in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from PIL import Image

from regrad.errors import UsageError
from regrad.network.pictures import MODES

INTERPOLATIONS = tuple(item.name.lower() for item in Image.Resampling)
CROP_MODES = ("center", "squash")  # timm's words: scale and cut, or press the whole picture into the size

_SHOWN = 3


def image_size(value: Any) -> tuple[int, int, int | None]:
    """(height, width, channels) of a side, (H, W), (C, H, W), or a dict of height and width or of shortest_edge.

    Channels are None where they are not told; numbers may be of any library.

    >>> image_size(224), image_size((3, 32, 48)), image_size({"height": 8, "width": 9})
    ((224, 224, None), (32, 48, 3), (8, 9, None))

    Raises:
        UsageError: it is none of these.
    """
    sides: Any = value
    if isinstance(value, Mapping):
        forms = ({"height", "width"}, {"shortest_edge"})
        if set(value) not in forms:
            raise UsageError(f"image size {dict(value)}: a dict of height and width, or of shortest_edge")
        sides = (value["height"], value["width"]) if "height" in value else value["shortest_edge"]
    numbers = _numbers("image size", sides)
    if not all(number == int(number) for number in numbers) or not 1 <= len(numbers) <= 3:
        raise UsageError(f"image size {value!r}: one side, (height, width) or (channels, height, width)")
    height, width = (int(numbers[-1]), int(numbers[-1])) if len(numbers) == 1 else map(int, numbers[-2:])
    channels = int(numbers[0]) if len(numbers) == 3 else None
    if channels is not None and channels not in MODES:
        raise UsageError(f"image size {value!r}: three numbers are (channels, height, width), with 1, 3 or 4 channels")
    if min(height, width) < 1:
        raise UsageError(f"image size {(height, width)}: both sides must be at least 1")
    return height, width, channels


def channel_count(value: Any) -> int:
    """1, 3 or 4.

    Raises:
        UsageError: it is none of these.
    """
    numbers = _numbers("channels", value)
    if len(numbers) != 1 or numbers[0] not in MODES:
        raise UsageError(f"channels {value}: images have 1, 3 or 4; use --transform for anything else")
    return int(numbers[0])


def whole(name: str, value: Any) -> int:
    """A whole number of at least 1.

    Raises:
        UsageError: it is none.
    """
    numbers = _numbers(name, value)
    if len(numbers) != 1 or numbers[0] != int(numbers[0]) or numbers[0] < 1:
        raise UsageError(f"{name} {value!r}: a whole number of at least 1")
    return int(numbers[0])


def per_channel(name: str, value: Any, channels: int) -> tuple[float, ...]:
    """``channels`` numbers, of one or as many; arrays of any library and shape.

    Raises:
        UsageError: there are others.
    """
    values = _numbers(name, value)
    if len(values) == 1:
        return tuple(values * channels)
    if len(values) != channels:
        raise UsageError(f"{name} has {len(values)} numbers for {channels} channels; give one, or one per channel")
    return tuple(values)


def interpolation(value: Any) -> str:
    """The name of one of Pillow's filters, from it, Pillow's number, or torchvision's mode.

    >>> interpolation(3), interpolation("BILINEAR")
    ('bicubic', 'bilinear')

    Raises:
        UsageError: it is none.
    """
    named = getattr(value, "value", value)  # of an enumeration
    if isinstance(named, int | np.integer) and not isinstance(named, bool):
        named = next((item.name for item in Image.Resampling if item == named), named)
    name = str(named).lower().removesuffix("-exact")
    if name not in INTERPOLATIONS:
        raise UsageError(f"interpolation {value!r}: one of {', '.join(INTERPOLATIONS)}")
    return name


def class_names(value: Any, classes: int, of_two: bool = False) -> tuple[str, ...]:
    """The names of ``classes`` classes in order, from a list, or a dict of index to name or of name to index.

    Args:
        of_two: the network has one number for two classes, so that one name is that of the second.

    >>> class_names({"1": "dog", "0": "cat"}, 2), class_names({"cat": 0, "dog": 1}, 2)
    (('cat', 'dog'), ('cat', 'dog'))

    Raises:
        UsageError: they are not as many, or their order is unknown.
    """
    if isinstance(value, Mapping):
        value = _by_index(value, classes)
    elif isinstance(value, str | bytes | AbstractSet) or not hasattr(value, "__iter__"):
        raise UsageError(f"class names {value!r}: a list in the order of the classes, or a dict of index to name")
    names = list(value)
    if any(name is None for name in names):
        raise UsageError(f"class names: class {names.index(None)} has none")
    if of_two and len(names) == 1:
        names = [f"not {names[0]}", names[0]]
    if len(names) != classes:
        raise UsageError(f"{len(names)} class names for a network with {classes} classes")
    return tuple(str(name) for name in names)


def _by_index(names: Mapping[Any, Any], classes: int) -> Sequence[Any]:
    keys = [_index(key) for key in names]
    if all(key is not None for key in keys):
        by_index = dict(zip(keys, names.values(), strict=True))
    elif all(_index(value) is not None for value in names.values()):
        by_index = {_index(value): key for key, value in names.items()}
    else:
        raise UsageError("class names: a dict has to have the class indices as its keys, or as its values")
    wrong = sorted(set(range(classes)) ^ set(by_index), key=str)
    if wrong or len(by_index) != len(names):
        shown = ", ".join(map(str, wrong[:_SHOWN]))
        raise UsageError(
            f"{len(names)} class names for a network with {classes} classes, numbered from 0"
            + (f": {shown} {'is' if len(wrong) == 1 else 'are'} missing or too many" if wrong else ", each once")
        )
    return [by_index[place] for place in range(classes)]


def _index(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isdecimal() else None
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None


def _numbers(name: str, value: Any) -> list[float]:
    """One number or several, finite."""
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        numbers = np.asarray(value, dtype=np.float64)
        if sum(side > 1 for side in numbers.shape) > 1:
            raise ValueError
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} {value!r}: not a number, nor several in a row") from error
    values = [float(number) for number in numbers.ravel()]
    if not values or not all(math.isfinite(number) for number in values):
        raise UsageError(f"{name} {value!r}: has to be finite numbers")
    return values
