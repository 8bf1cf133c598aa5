"""Encoded images of every kind that a real collection holds: those that must be scored, and those that must not."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from tests.shards import digits

MAX_PIXELS = 1_000_000  # the limit the cases are made for
PIXELS = np.asarray(Image.open(io.BytesIO(digits()[0][1])))  # (8, 8) greys


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """``image`` encoded."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(pixels: np.ndarray = PIXELS) -> Image.Image:
    """A picture of these greys."""
    return Image.fromarray(np.ascontiguousarray(pixels))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file, checksum included."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(content: bytes, before: bytes, *chunks: bytes) -> bytes:
    """A PNG file with more chunks, right before the first one of the kind ``before``."""
    place = content.index(before) - 4
    return content[:place] + b"".join(chunks) + content[place:]


def png_of(width: int, height: int) -> bytes:
    """A PNG file that claims a size, and is sound up to there."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def oriented(orientation: int) -> bytes:
    """PIXELS as a camera held another way stores them: upright only after its EXIF orientation."""
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(np.transpose(a), 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(grey(undo(PIXELS)), "PNG", exif=exif)


def animated(kind: str, **options: Any) -> bytes:
    """An animation whose first frame is PIXELS and whose others are not."""
    return save(grey(), kind, save_all=True, append_images=[grey(255 - PIXELS), grey(PIXELS.T)], **options)


def scan_bomb(scans: int = 2000) -> bytes:
    """A small JPEG that asks for thousands of passes over its pixels."""
    content = save(grey(np.zeros((64, 64), np.uint8)), "JPEG", progressive=True)
    return content[:-2] + content[content.rindex(b"\xff\xda") : -2] * scans + content[-2:]


def transparent_palette() -> Image.Image:
    """A palette picture some of whose colours are see-through."""
    image = grey().convert("RGB").quantize(256)
    image.info["transparency"] = bytes(range(0, 256, 2))
    return image


def good() -> dict[str, bytes]:
    """Lossless forms of PIXELS, name to file."""
    rgb, wide = grey().convert("RGB"), PIXELS.astype(np.uint16) * 257
    alpha = Image.fromarray(np.full((8, 8), 40, np.uint8))
    forms = {
        "grey": save(grey(), "PNG"),
        "grey with alpha": save(Image.merge("LA", [grey(), alpha]), "PNG"),
        "palette": save(rgb.quantize(256), "PNG"),
        "palette with transparency": save(transparent_palette(), "PNG", transparency=bytes(range(0, 256, 2))),
        "GIF with a transparent colour": save(rgb.quantize(255), "GIF", transparency=3),
        "RGB": save(rgb, "PNG"),
        "RGB with a transparent colour": save(rgb, "PNG", transparency=(0, 0, 0)),
        "RGBA": save(Image.merge("RGBA", [grey(), grey(), grey(), alpha]), "PNG"),
        "BMP": save(rgb, "BMP"),
        "PPM": save(rgb, "PPM"),
        "WebP": save(rgb, "WEBP", lossless=True),
        "TIFF": save(rgb, "TIFF", compression="tiff_deflate"),
        "16-bit PNG": save(grey(wide), "PNG"),
        "16-bit TIFF": save(grey(wide), "TIFF"),
        "16-bit TIFF, big-endian": save(Image.frombytes("I;16B", (8, 8), wide.astype(">u2").tobytes()), "TIFF"),
        "16-bit PGM": b"P5 8 8 65535\n" + wide.astype(">u2").tobytes(),
        "float TIFF": save(grey(PIXELS.astype(np.float32) / np.float32(255)), "TIFF"),
        "animated GIF": animated("GIF"),
        "animated WebP": animated("WEBP", lossless=True),
        "animated PNG": animated("PNG"),
        "bytes after the end": save(grey(), "PNG") + b"more" * 99,
        "a colour profile": save(rgb, "PNG", icc_profile=bytes(1000)),
        "a damaged colour profile": with_chunk(save(grey(), "PNG"), b"IDAT", chunk(b"iCCP", b"x\0\0damaged")),
        "damaged EXIF": save(grey(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "a GIF smaller than its screen": save(grey(), "GIF"),
    }
    return forms | heavy() | {f"EXIF orientation {number}": oriented(number) for number in range(1, 9)}


def heavy() -> dict[str, bytes]:
    """PNG files with profiles and texts of any size, which are not read, or only for the orientation."""
    png, turned = save(grey(), "PNG"), save(grey(np.rot90(PIXELS, 1)), "PNG")
    megabytes, bomb = np.random.default_rng(0).bytes(3_000_000), zlib.compress(bytes(50_000_000), 9)
    history = b"<rdf:li>0123456789</rdf:li>" * 60_000 + b"<tiff:Orientation>6</tiff:Orientation>"
    xmp = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(history)
    return {
        "a profile of megabytes": save(grey(), "PNG", icc_profile=megabytes),
        "a text of megabytes": with_chunk(png, b"IEND", chunk(b"tEXt", b"k\0" + b"text" * 20_000_000)),
        "a text bomb": with_chunk(png, b"IDAT", chunk(b"zTXt", b"k\0\0" + bomb)),
        "a text bomb at the end": with_chunk(png, b"IEND", chunk(b"zTXt", b"k\0\0" + bomb)),
        "a profile bomb": with_chunk(png, b"IDAT", chunk(b"iCCP", b"k\0\0" + bomb)),
        "a text packed in an unknown way": with_chunk(png, b"IDAT", chunk(b"zTXt", b"k\0\7" + bomb)),
        "an orientation in much XMP": with_chunk(turned, b"IDAT", chunk(b"iTXt", xmp)),
        "an orientation in more XMP than Pillow reads": with_chunk(
            turned, b"IDAT", chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + history * 45)
        ),
        "an orientation in little XMP": with_chunk(
            turned, b"IDAT", chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation="6"')
        ),
        "XMP bombs": with_chunk(
            png, b"IDAT", *[chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb) for _ in range(100)]
        ),
    }


def strange() -> dict[str, bytes]:
    """Sound files of strange shape or content, which are scored as well."""
    return {
        "one pixel": save(Image.new("L", (1, 1), 77), "PNG"),
        "20,000 pixels wide": save(Image.new("RGB", (20_000, 3), (9, 99, 199)), "PNG"),
        "20,000 pixels high": save(Image.new("L", (2, 20_000), 50), "PNG"),
        "1-bit": save(grey().convert("1"), "PNG"),
        "CMYK JPEG of Adobe's": save(grey().convert("RGB").convert("CMYK"), "JPEG", quality=100),
        "progressive JPEG": save(grey(), "JPEG", progressive=True),
        "a dark 16-bit PNG": save(grey(PIXELS.astype(np.uint16)), "PNG"),
    }


def bombs() -> dict[str, tuple[bytes, str, str]]:
    """Small files that ask for much memory or time: content, stage, pattern of the reason."""
    pixels = r"pixels, more than --max-pixels 1000000"
    tiff = save(Image.new("1", (4000, 4000)), "TIFF", compression="group4")
    frame = bytearray(save(grey(), "GIF"))
    place = frame.index(b",\0\0\0\0\x08\0\x08\0")
    frame[place + 5 : place + 9] = struct.pack("<HH", 60_000, 60_000)
    return {
        "PNG bomb": (save(Image.new("1", (20_000, 20_000)), "PNG"), "decode", f"20000 x 20000 {pixels}"),
        "PNG that claims the largest size": (png_of(2**31 - 1, 2**31 - 1), "decode", "."),
        "WebP bomb": (save(Image.new("RGB", (4000, 4000)), "WEBP", lossless=True), "decode", f"4000 x 4000 {pixels}"),
        "TIFF bomb": (tiff, "decode", f"4000 x 4000 {pixels}"),
        "GIF bomb": (b"GIF89a\xff\xff\xff\xff\0\0\0" + frame[13:], "decode", f"65535 x 65535 {pixels}"),
        "GIF frame larger than its screen": (bytes(frame), "decode", f"60000 x 60000 {pixels}"),
        "BMP bomb": (_bmp(30_000, 30_000), "decode", f"30000 x 30000 {pixels}"),
        "JPEG of thousands of scans": (scan_bomb(), "decode", "a JPEG of 20.. scans, more than 128"),
    }


def _bmp(width: int, height: int) -> bytes:
    content = bytearray(save(grey(), "BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def bad() -> dict[str, tuple[bytes, str, str]]:
    """What must go to quarantine: content, stage, pattern of the reason."""
    unknown = "not an image of a known format"
    photo = Image.effect_noise((64, 64), 90)
    cut = {
        kind: save(photo.convert("RGB"), kind)[:-1500] for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM")
    }
    crc = bytearray(save(grey(), "PNG"))
    crc[crc.index(b"IDAT") + 6] ^= 0xFF
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    white, black = np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8)
    files = {
        "zero bytes": (b"", "decode", "empty file"),
        "text called .jpg": (b"404: Not Found\n", "decode", unknown),
        "HTML called .jpg": (b"<!DOCTYPE html><html></html>", "decode", "a web page, as a login"),
        "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "decode", unknown),
        "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "decode", "SVG pictures are not decoded here: convert"),
        "a pickle": (pickle.dumps(Poison()), "decode", unknown),
        "a PNG signature alone": (b"\x89PNG\r\n\x1a\n", "decode", "."),
        "PNG of no width": (png_of(0, 8), "decode", "."),
        "PNG with a wrong checksum": (bytes(crc), "decode", "."),
        "float TIFF out of range": (
            save(grey(values * 300), "TIFF"),
            "preprocess",
            "from 0 to 300 have no known scale",
        ),
        "float TIFF with NaN": (save(grey(np.where(values > 0.5, np.nan, values)), "TIFF"), "preprocess", "from nan"),
        "32-bit TIFF": (save(grey((values * 1e6).astype(np.int32)), "TIFF"), "preprocess", "to 1e"),
        "NaN from the model": (save(grey(white), "PNG"), "score", "regrad is nan.* not finite for this image"),
        "infinity from the model": (save(grey(black), "PNG"), "score", "not finite for this image"),
    }
    truncated = {f"{kind} cut short": (content, "decode", ".") for kind, content in cut.items()}
    return files | truncated | bombs()


class Poison:
    """A pickle of it writes a file when it is loaded."""

    path = "poisoned"

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")
