import io

import pytest
from PIL import Image

from regrad.reading.images import Refused, open_image, upright, upright_size
from tests.bad_images import scan_bomb


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (10, 5)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html>", "a web page"),
        (encoded("EPS"), "not an image of a known format"),
        (encoded("PNG"), "10 x 5 pixels, more than --limit 49"),
        (scan_bomb(), "a JPEG of 20.. scans, more than 128"),
    ],
)
def test_what_is_refused_undecoded(content: bytes, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        open_image(content, 49 if "limit" in reason else 10**9, "--limit")


def test_a_picture_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    assert upright(open_image(encoded("JPEG", exif=exif), 50)).size == (5, 10)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_size_is_told_as_it_is_turned(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(kind, exif=exif)
    assert upright_size(content, 50) == upright(open_image(content, 50)).size
