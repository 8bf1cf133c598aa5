"""Image files that anybody may have written, opened safely: for scoring, and for the pictures of a report."""

from __future__ import annotations

import functools
import io

from PIL import Image, ImageOps, UnidentifiedImageError

# A fixed list: Pillow would also hand PostScript to an interpreter, and open formats that are no pictures.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
DEFAULT_MAX_PIXELS = 50_000_000  # decoded as RGB that is 150 MB, for each decoding thread
# Encoders write about ten; each scan costs a pass over all pixels, and the bytes of hundreds are few.
_MAX_JPEG_SCANS = 128
DEFAULT_MAX_PIXELS = 50_000_000  # decoded as RGB that is 150 MB, for each decoding thread


class Refused(ValueError):
    """The bytes are no picture that can be decoded safely; the message says why."""


def open_image(content: bytes, max_pixels: int, setting: str = "") -> Image.Image:
    """The picture in ``content``, not yet decoded.

    Args:
        content: an image file.
        max_pixels: refuse a picture of more.
        setting: what the user may raise that limit by.

    Raises:
        Refused: no picture of a known format, or one that costs too much to decode.
        Exception: of many kinds (OSError, ValueError, SyntaxError, struct.error, ...), from damaged files.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=_installed_formats())
    except UnidentifiedImageError as error:
        raise Refused("not an image of a known format" if content else "empty file") from error
    if image.width * image.height > max_pixels:
        limit = f"{setting} {max_pixels}".strip()
        raise Refused(f"{image.width} x {image.height} pixels, more than {limit}")
    scans = content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
    if scans > _MAX_JPEG_SCANS:
        raise Refused(f"a JPEG of {scans} scans, more than {_MAX_JPEG_SCANS}")
    return image


def extension(content: bytes) -> str:
    """What the names of files like ``content`` end with, such as ``png``; ``bin`` where it is no picture."""
    try:
        kind = Image.open(io.BytesIO(content), formats=_installed_formats()).format or "BIN"
    except Exception:
        return "bin"
    return "jpg" if kind == "MPO" else kind.lower()  # a JPEG that holds several pictures


def lift_limit() -> None:
    """Take Pillow's own limit of pixels away in this process: :func:`open_image` has its caller's, before decoding."""
    Image.MAX_IMAGE_PIXELS = None


def upright(image: Image.Image) -> Image.Image:
    """``image`` turned as its EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image  # damaged EXIF data beside sound pixels: the picture counts


@functools.cache
def _installed_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # AVIF depends on how Pillow was built
