"""Image files that anybody may have written, opened safely: for scoring, and for the pictures of a report."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
import zlib

from PIL import Image, ImageOps, UnidentifiedImageError

from regrad.reading.naming import pictures

# A fixed list: Pillow would also hand PostScript to an interpreter, and open formats that are no pictures.
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JXL", "PNG", "PPM", "TIFF", "WEBP")
DEFAULT_MAX_PIXELS = 50_000_000  # decoded as RGB that is 150 MB, for each decoding thread
# Encoders write about ten; each scan costs a pass over all pixels, and the bytes of hundreds are few.
_MAX_JPEG_SCANS = 128
_PNG = b"\x89PNG\r\n\x1a\n"
_METADATA = frozenset((b"iCCP", b"tEXt", b"zTXt", b"iTXt"))  # chunks of a PNG file that Pillow unpacks or refuses
_ORIENTING = frozenset((b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif"))  # texts that may tell what is up
_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_ORIENTATION_TAG, _LYING = 0x0112, (5, 6, 7, 8)  # of EXIF, and those of its values that are a quarter of a turn
_KEPT_BYTES = 2**20  # of such a text; Pillow reads no larger ones
_SEARCHED_BYTES = 2**24


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
    if content.startswith(_PNG):
        content = _without_metadata(content)
    if pictures.is_jxl(content):
        if (size := pictures.jxl_size(content)) is None:
            raise Refused("a JPEG XL file whose header tells no size")
        _refuse_large(*size, max_pixels, setting)
    try:
        image = Image.open(io.BytesIO(content), formats=_installed_formats())
    except UnidentifiedImageError as error:
        raise Refused(_why_unknown(content)) from error
    if image.format == "TIFF" and pictures.is_raw(image.tag_v2, content):  # type: ignore[attr-defined]
        raise Refused(pictures.raw_refused())
    _refuse_large(image.width, image.height, max_pixels, setting)
    scans = content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 0
    if scans > _MAX_JPEG_SCANS:
        raise Refused(f"a JPEG of {scans} scans, more than {_MAX_JPEG_SCANS}")
    return image


def _refuse_large(width: int, height: int, max_pixels: int, setting: str) -> None:
    if width * height > max_pixels:
        limit = f"{setting} {max_pixels}".strip()
        raise Refused(f"{width} x {height} pixels, more than {limit}")


def _why_unknown(content: bytes) -> str:
    if not content:
        return "empty file"
    return pictures.why_unknown(content) or "not an image of a known format"


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


def upright_size(content: bytes, max_pixels: int) -> tuple[int, int]:
    """(width, height) of the picture in ``content`` as its EXIF orientation shows it, from its header alone.

    Raises:
        Refused, Exception: see :func:`open_image`.
    """
    with open_image(content, max_pixels) as image:
        try:
            lies = image.format != "TIFF" and image.getexif().get(_ORIENTATION_TAG, 1) in _LYING  # TIFF's Pillow turns
        except Exception:
            lies = False  # as upright() has it
        return (image.height, image.width) if lies else (image.width, image.height)


def _without_metadata(png: bytes) -> bytes:
    """``png`` without its colour profile and texts, however large, but for what says which side is up."""
    kept, start, place, texts = list[bytes](), 0, len(_PNG), set[bytes]()
    while place + 12 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, place)
        end = place + 12 + size
        if kind in _METADATA and end <= len(png):
            name, _, text = png[place + 8 : end - 4].partition(b"\0")
            if kind == b"iCCP" or name in texts or name not in _ORIENTING:
                kept, start = [*kept, png[start:place]], end
            elif len(content := _unpacked(kind, text)) > _KEPT_BYTES:
                kept, start = [*kept, png[start:place], _orientation(content)], end
            texts.add(name)
        place = end
    return b"".join([*kept, png[start:]]) if kept else png


def _unpacked(kind: bytes, text: bytes) -> bytes:
    """A text, up to more than is searched."""
    if kind == b"tEXt" or (kind == b"iTXt" and text[:1] == b"\0"):
        return text
    packed = text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[-1]  # after the method, the languages
    try:
        return zlib.decompressobj().decompress(packed, _SEARCHED_BYTES)
    except zlib.error:
        return b""


def _orientation(text: bytes) -> bytes:
    """A chunk of PNG with nothing but the orientation in a text that is too large to keep, if there is one."""
    if not (told := _ORIENTATION.search(text)):
        return b""
    content = b"iTXtXML:com.adobe.xmp\0\0\0\0\0" + told[0]
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


@functools.cache
def _installed_formats() -> list[str]:
    Image.init()
    _load_plugins()
    return [name for name in FORMATS if name in Image.OPEN]  # AVIF depends on how Pillow was built


def _load_plugins() -> None:
    """Let Pillow decode what the optional ``regrad[heif]`` brings: HEIC and JPEG XL."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401  # registers itself
