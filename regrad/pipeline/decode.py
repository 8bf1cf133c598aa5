"""Encoded bytes to the tensor a scorer takes, with every way a picture can be bad named by stage and reason."""

from __future__ import annotations

import functools
import io

from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from regrad import storage
from regrad.classifier import Classifier

DEFAULT_MAX_PIXELS = 50_000_000  # decoded as RGB that is 150 MB, for each decoding thread
# Encoders write about ten; each scan costs a pass over all pixels, and the bytes of hundreds are few.
_MAX_JPEG_SCANS = 128
# A fixed list: Pillow would also hand PostScript to an interpreter, and open formats that are no pictures.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@functools.cache
def _installed_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # AVIF depends on how Pillow was built


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
        image = Image.open(io.BytesIO(content), formats=_installed_formats())
    except UnidentifiedImageError as error:
        raise BadImage("decode", "empty file" if not content else "not an image of a known format") from error
    except Exception as error:
        raise BadImage("decode", storage.reason(error)) from error
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} pixels"
        raise BadImage("decode", f"{size}, more than --max-pixels {max_pixels}")
    scans = content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
    if scans > _MAX_JPEG_SCANS:
        raise BadImage("decode", f"a JPEG of {scans} scans, more than {_MAX_JPEG_SCANS}")
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        raise BadImage("decode", storage.reason(error)) from error
    return _upright(image)


def to_tensor(content: bytes, classifier: Classifier, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor:
    """The [0, 1] image (channels, H, W) that ``classifier`` makes of ``content``.

    Raises:
        BadImage: see :func:`decode`, or the classifier's preprocessing refused the picture.
    """
    image = decode(content, max_pixels)
    try:
        return classifier.preprocess(image)
    except Exception as error:  # a user's transform may raise anything
        raise BadImage("preprocess", storage.reason(error)) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image  # damaged EXIF data beside sound pixels: the picture counts
