import io
import re
import struct

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from regrad.reading import images
from regrad.reading.naming.pictures import is_decoded, is_image, jxl_size, why_unknown, why_unread

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)


def test_pictures_are_known_by_their_names() -> None:
    names = ("a.JPG", "b.webp", "seg.png", "jpg", "x.HEIC", "x.jxl", "x.jp2", "x.NEF", "x.svg")
    assert [is_image(name) for name in names] == [True] * len(names)
    assert [is_decoded(name) for name in names] == [True] * 4 + [False] * 5
    assert not any(is_image(name) for name in ("notes.txt", "a.parquet", "README", "a.raw", "a.hdr"))


@pytest.mark.parametrize("name", ["1.dng", "1.CR2", "a/b.psd", "x.j2k", "x.svg"])
def test_what_no_decoder_takes_is_not_read(name: str) -> None:
    assert "are not decoded here: convert" in str(why_unread(name))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC .*install regrad.heif."),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF .*Pillow 11.3"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "camera RAW"),
        (b"\xff\x0a\x00", "JPEG XL .*install regrad.heif."),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\n<!DOCTYPE HTML>", "a web page"),
    ],
)
def test_what_a_file_is_is_told_by_its_first_bytes(content: bytes, what: str) -> None:
    assert re.search(what, str(why_unknown(content)))


def test_what_begins_like_nothing_known_has_no_name() -> None:
    assert why_unknown(b"anything else") is None


def test_a_preview_in_a_raw_file_is_no_picture() -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[50706] = b"\x01\x04\x00\x00"  # DNGVersion
    sink = io.BytesIO()
    Image.fromarray(PIXELS).save(sink, "TIFF", tiffinfo=tags)
    with pytest.raises(images.Refused, match="camera RAW pictures are not decoded here"):
        images.open_image(sink.getvalue(), 10**6)
    plain = io.BytesIO()
    Image.fromarray(PIXELS).save(plain, "TIFF")
    assert images.open_image(plain.getvalue(), 10**6).size == (48, 32)


def codestream(bits: str) -> bytes:
    """A JPEG XL header of these bits, each field's least significant first."""
    return b"\xff\x0a" + int(bits[::-1], 2).to_bytes(16, "little")


def field(value: int, count: int) -> str:
    return f"{value:0{count}b}"[::-1]


def test_the_size_of_a_jpeg_xl_file_is_in_its_header() -> None:
    small = codestream("1" + field(3, 5) + field(0, 3) + field(5, 5))  # 8 * (1 + n), no ratio
    wide = codestream("0" + field(2, 2) + field(99_999, 18) + field(7, 3))  # a height, and twice as wide
    assert (jxl_size(small), jxl_size(wide)) == ((48, 32), (200_000, 100_000))
    boxes = b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4sI", 40, b"jxlp", 0) + small
    assert jxl_size(boxes) == (48, 32)
    with pytest.raises(images.Refused, match="200000 x 100000 pixels, more than"):
        images.open_image(wide, 10**6)  # the decoder would have decoded it to tell
    with pytest.raises(images.Refused, match="header tells no size"):
        images.open_image(b"\0\0\0\x0cJXL \r\n\x87\n", 10**6)


@pytest.mark.parametrize(("kind", "module"), [("HEIF", "pillow_heif"), ("JXL", "pillow_jxl")])
def test_an_installed_plugin_decodes(kind: str, module: str) -> None:
    pytest.importorskip(module, exc_type=ImportError)
    images._load_plugins()
    sink = io.BytesIO()
    ramp = np.broadcast_to(np.linspace(0, 255, 48, dtype=np.uint8)[None, :, None], (32, 48, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(sink, kind)
    image = images.open_image(sink.getvalue(), 10**6)
    assert (image.format, image.size) == (kind, (48, 32))
    assert np.abs(np.asarray(image.convert("RGB"), float) - ramp).mean() < 3
