"""Encoded bytes to the tensor a scorer takes, with every way a picture can be bad named by stage and reason."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torch import Tensor

from regrad import storage
from regrad.classifier import Classifier
from regrad.reading import images
from regrad.reading.images import DEFAULT_MAX_PIXELS


class BadImage(ValueError):
    """An image that cannot be scored: ``stage`` says where it stopped (decode or preprocess), ``reason`` why."""

    def __init__(self, stage: str, reason: str):
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason


def decode(content: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """The picture in ``content``, upright as its EXIF orientation says; of an animation, the first frame.

    Raises:
        BadImage: no picture, a damaged one, or one of more than ``max_pixels`` (noticed before decoding).
    """
    try:
        image = images.open_image(content, max_pixels, "--max-pixels")
        image.load()
    except images.Refused as error:
        raise BadImage("decode", str(error)) from error
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        raise BadImage("decode", storage.reason(error)) from error
    return images.upright(image)


def to_tensor(content: bytes, classifier: Classifier, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor:
    """The [0, 1] image (channels, H, W) that ``classifier`` makes of ``content``.

    Raises:
        BadImage: see :func:`decode`, or the classifier's preprocessing refused the picture.
    """
    return _made(classifier.preprocess, decode(content, max_pixels))


def to_compact(content: bytes, classifier: Classifier, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor:
    """The same in as few bytes as a scorer takes it: see :meth:`regrad.classifier.Classifier.compact`."""
    return _made(classifier.compact, decode(content, max_pixels))


def _made(make: Callable[[Image.Image], Tensor], image: Image.Image) -> Tensor:
    try:
        return make(image)
    except Exception as error:  # a user's transform may raise anything
        raise BadImage("preprocess", storage.reason(error)) from error
