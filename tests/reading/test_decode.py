import io
import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from regrad import Classifier
from regrad.network.pictures import Preprocessing
from regrad.reading import decode as decoding
from regrad.reading.decode import BadImage, DecodingThreads, How, decode, to_tensor
from tests.shards import build, digits


def encoded(mode: str = "RGB", size: tuple[int, int] = (6, 4), kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    network, known = build()
    return Classifier(network, **known)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("1", "PNG"), ("P", "GIF"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("I;16", "PNG"), ("RGB", "WEBP")],
)
def test_every_common_mode_becomes_the_models_image(classifier: Classifier, mode: str, kind: str) -> None:
    assert to_tensor(encoded(mode, kind=kind), classifier).shape == (1, 8, 8)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(size=(6, 4), kind="JPEG", exif=exif)).size == (4, 6)


def test_damaged_exif_does_not_cost_the_image() -> None:
    assert decode(encoded(kind="JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).size == (6, 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"this is text", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (digits()[0][1][:60], "truncated"),
    ],
)
def test_bad_files_are_named(content: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason) as caught:
        decode(content)
    assert caught.value.stage == "decode"
    assert "\n" not in caught.value.reason
    assert "0x" not in caught.value.reason  # the same reason every time


def test_too_many_pixels_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(size=(100, 11))
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadImage, match="100 x 11 pixels, more than --max-pixels 1000"):
        decode(content, max_pixels=1000)


def test_a_transform_that_fails_is_the_stage_preprocess() -> None:
    def refuse(image: Any) -> Any:
        raise ValueError("too dark")

    network, known = build()
    with pytest.raises(BadImage, match="too dark") as caught:
        to_tensor(digits()[0][1], Classifier(network, **known, transform=refuse))
    assert caught.value.stage == "preprocess"


def test_a_digit_arrives_pixel_by_pixel(classifier: Classifier) -> None:
    image = to_tensor(digits()[0][1], classifier)
    expected = np.asarray(Image.open(io.BytesIO(digits()[0][1])), dtype=np.float32) / 255
    np.testing.assert_array_equal(image[0].numpy(), expected)


def jpeg(size: tuple[int, int], orientation: int = 1, kind: str = "JPEG") -> bytes:
    """A smooth picture, which no encoder changes much."""
    across, down = np.meshgrid(np.linspace(0, 6, size[0]), np.linspace(0, 5, size[1]))
    levels = 127 + 100 * np.stack([np.sin(across), np.cos(down), np.sin(across + down)], -1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8)).save(sink, kind, quality=95, exif=exif)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "least", "size"),
    [
        (jpeg((162, 120)), None, (162, 120)),
        (jpeg((162, 120)), 61, (162, 120)),
        (jpeg((162, 120)), 60, (81, 60)),
        (jpeg((162, 120)), 30, (41, 30)),
        (jpeg((160, 120)), 2, (20, 15)),  # an eighth at the least
        (jpeg((162, 120), orientation=6), 30, (30, 41)),
        (jpeg((162, 120), kind="PNG"), 30, (162, 120)),
    ],
)
def test_a_jpeg_is_decoded_at_a_part_of_its_size(content: bytes, least: int | None, size: tuple[int, int]) -> None:
    decoded = decode(content, least_side=least)
    assert decoded.size == size
    of_all = decode(content).resize(size, Image.Resampling.BOX)
    assert np.abs(np.asarray(decoded, float) - np.asarray(of_all, float)).mean() < 3


@pytest.mark.parametrize(("side", "same"), [(191, True), (192, False)])
def test_whoever_asks_for_it_has_large_jpegs_scaled(side: int, same: bool) -> None:
    network, known = build()
    known |= {"resize_size": 24}
    exact, scaled = (Classifier(network, **known, scaled_jpeg=asked) for asked in (False, True))
    content = jpeg((side + 40, side))
    one, other = to_tensor(content, exact), to_tensor(content, scaled)
    assert torch.equal(one, other) == same
    assert (one - other).abs().mean() < 1 / 255
    assert torch.equal(How(scaled.preprocessing).picture(content).tensor.float() / 255, other)


@pytest.mark.parametrize(("milliseconds", "at_once"), [(0.1, 2), (0.8, 4), (20, 6)])
def test_so_many_threads_decode_at_once_as_it_is_worth(
    milliseconds: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, most = [0], [0]
    lock = threading.Lock()

    def decoded(*_: Any) -> torch.Tensor:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        threading.Event().wait(0.03)
        with lock:
            running[0] -= 1
        return torch.zeros(1)

    class Clock(threading.local):
        def __init__(self) -> None:
            self.times = itertools.count()

    clock = Clock()
    monkeypatch.setattr(decoding, "to_compact", decoded)
    monkeypatch.setattr(time, "thread_time", lambda: next(clock.times) * milliseconds / 1000)
    threads = DecodingThreads(How(Preprocessing((8, 8), 1)), 6)
    for image in [threads.submit(b"") for _ in range(40)]:
        image.result(20)
    threads.shutdown()
    assert most == [at_once]
