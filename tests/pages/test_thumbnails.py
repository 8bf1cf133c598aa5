"""Thumbnails of every kind of picture, and of none."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regrad.pages import thumbnails


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(thumbnail: thumbnails.Thumbnail) -> Image.Image:
    assert thumbnail.uri is not None
    return Image.open(io.BytesIO(base64.b64decode(thumbnail.uri.removeprefix("data:image/webp;base64,"))))


def noise(mode: str, size: tuple[int, int]) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(-1) if bands == 1 else pixels, mode)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(8, 8), (28, 20), (64, 64)])
def test_small_pictures_keep_every_pixel(mode: str, size: tuple[int, int]) -> None:
    image = noise(mode, size)
    made = thumbnails.shrink(encode(image))
    assert (made.width, made.height) == size
    assert np.array_equal(np.asarray(decode(made).convert("RGB")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("size", "expected"), [((1600, 400), (160, 40)), ((300, 300), (160, 160))])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_large_pictures_shrink_in_proportion(size: tuple[int, int], expected: tuple[int, int], kind: str) -> None:
    made = thumbnails.shrink(encode(noise("RGB", size), kind))
    assert decode(made).size == (made.width, made.height) == expected


def test_2000_thumbnails_of_photographs_fit_in_a_page() -> None:
    # Smooth shading with fine grain compresses about as well as a photograph; plain noise does not.
    y, x = np.mgrid[0:480, 0:640]
    shade = 128 + 60 * np.sin(x / 37) + 50 * np.cos(y / 23)
    grain = np.random.default_rng(0).normal(0, 8, shade.shape)
    photo = Image.fromarray((shade + grain).clip(0, 255).astype(np.uint8)).convert("RGB")
    made = thumbnails.shrink(encode(photo, "JPEG"))
    assert made.uri is not None
    assert 2000 * len(made.uri) < 24_000_000


def test_a_page_of_2000_noisy_pictures_stays_within_its_bytes() -> None:
    encoded, most = encode(noise("RGB", (400, 300))), thumbnails.limit(2000)
    made = thumbnails.shrink(encoded, limit=most)
    assert made.uri is not None
    assert len(made.uri) <= most < len(thumbnails.shrink(encoded).uri or "")
    assert 2000 * most <= 18_000_000
    assert made.width * 3 == pytest.approx(made.height * 4, abs=4)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = np.asarray(decode(thumbnails.shrink(encode(Image.fromarray(values)))).convert("L"))
    assert pixels.ravel() == pytest.approx(np.linspace(0, 255, 256), abs=1.5)


def test_floats_are_scaled_as_the_model_takes_them() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    pixels = np.asarray(decode(thumbnails.shrink(encode(Image.fromarray(values), "TIFF"))).convert("L"))
    assert pixels.ravel() == pytest.approx(np.arange(256), abs=1.5)


@pytest.mark.parametrize("side", [40, 800])
def test_a_picture_stands_upright_as_it_was_scored(side: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    image = Image.new("RGB", (side, side // 2), "white")
    image.paste("black", (0, 0, side // 4, side // 2))  # what is on the left comes to the top
    shown = decode(thumbnails.shrink(encode(image, "JPEG", exif=exif, quality=95))).convert("L")
    assert shown.height == 2 * shown.width
    assert shown.getpixel((shown.width // 2, 2)) < 50
    assert shown.getpixel((shown.width // 2, shown.height - 3)) > 200


def test_no_interpreter_is_started_for_a_picture() -> None:
    with pytest.raises(ValueError, match="not an image of a known format"):  # Pillow would run Ghostscript
        thumbnails.shrink(encode(noise("RGB", (10, 10)), "EPS"))


def test_transparency_is_kept() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode(thumbnails.shrink(encode(image))).getchannel("A").getextrema() == (0, 0)


def test_a_picture_of_too_many_pixels_is_refused_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MAX_PIXELS", 99)
    with pytest.raises(ValueError, match="10 x 10 pixels, more than 99"):
        thumbnails.shrink(encode(noise("L", (10, 10))))


def wanted(*places: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"source": source, "row": row, "id": f"image {row}"} for source, row in places]


def collect(rows: list[dict[str, Any]], fetch: Any, **more: Any) -> list[thumbnails.Thumbnail]:
    return thumbnails.collect({"set": rows}, {"set": fetch}, **more)["set"]


def test_collect_keeps_the_order_of_rows_and_asks_each_source_once() -> None:
    pictures = {source: {row: noise("L", (row + 1, 3)) for row in range(5)} for source in ("a", "b")}
    asked = []

    def fetch(source: str, rows: Mapping[int, str]) -> Iterator[tuple[int, bytes]]:
        asked.append((source, dict(rows)))
        yield from ((row, encode(pictures[source][row])) for row in rows)

    rows = wanted(("a", 4), ("b", 1), ("a", 0), ("a", 4))
    assert [made.width for made in collect(rows, fetch)] == [5, 2, 1, 5]
    assert sorted(asked, key=str) == [("a", {0: "image 0", 4: "image 4"}), ("b", {1: "image 1"})]


def test_each_set_has_a_reader_of_its_own() -> None:
    def fetch(size: int) -> Any:
        return lambda source, rows: [(row, encode(noise("L", (size, 3)))) for row in rows]

    rows = wanted(("the same", 0))
    made = thumbnails.collect({"a": rows, "b": rows}, {"a": fetch(4), "b": fetch(7)})
    assert (made["a"][0].width, made["b"][0].width) == (4, 7)


def test_parts_of_a_page_are_fetched_in_one_go_and_given_back_apart() -> None:
    asked: list[tuple[str, dict[int, str]]] = []

    def fetch(source: str, rows: Mapping[int, str]) -> Iterator[tuple[int, bytes]]:
        asked.append((source, dict(rows)))
        for row in rows:
            yield row, encode(Image.new("L", (row + 1, 1)))

    parts = [{"a": wanted(("s", 4), ("s", 2))}, {"b": wanted(("t", 1)), "a": wanted(("s", 2), ("s", 6))}]
    first, second = thumbnails.collect_all(parts, {"a": fetch, "b": fetch})
    widths = [{name: [made.width for made in pictures] for name, pictures in part.items()} for part in (first, second)]
    assert widths == [{"a": [5, 3]}, {"b": [2], "a": [3, 7]}]
    assert sorted((source, *rows) for source, rows in asked) == [("s", 2, 4, 6), ("t", 1)]


def test_sources_are_read_in_parallel() -> None:
    both = threading.Barrier(2, timeout=20)

    def fetch(source: str, rows: Mapping[int, str]) -> list[tuple[int, bytes]]:
        both.wait()  # passes only when two sources are being read at the same time
        return [(row, encode(noise("L", (4, 4)))) for row in rows]

    made = collect(wanted(("a", 0), ("b", 0)), fetch)
    assert [thumbnail.problem for thumbnail in made] == ["", ""]


def test_failures_become_placeholders_with_a_masked_reason() -> None:
    def fetch(source: str, rows: Mapping[int, str]) -> Iterator[tuple[int, bytes]]:
        yield 0, encode(noise("L", (4, 4)))
        if source == "gone":
            raise FileNotFoundError("s3://key:secret@bucket/gone.tar")
        yield 1, b"no picture"

    keys = [("gone", 0), ("gone", 1), ("here", 0), ("here", 1), ("here", 2)]
    before, gone, good, damaged, missing = collect(wanted(*keys), fetch)
    assert before.uri is not None
    assert good.uri is not None
    assert (gone.uri, damaged.uri, missing.uri) == (None, None, None)
    assert gone.problem == "FileNotFoundError: s3://***@bucket/gone.tar"
    assert damaged.problem == "not an image of a known format"
    assert missing.problem == "not in its source any more"


def test_a_store_that_hangs_costs_the_pictures_that_have_not_come() -> None:
    never, slow_one_has_begun = threading.Event(), threading.Event()

    def fetch(source: str, rows: Mapping[int, str]) -> Iterator[tuple[int, bytes]]:
        yield 0, encode(noise("L", (4, 4)))
        if source == "hangs":
            slow_one_has_begun.set()
            never.wait(60)
        yield 1, encode(noise("L", (4, 4)))

    keys = [("hangs", 0), ("hangs", 1), ("here", 0), ("here", 1)]
    made = collect(wanted(*keys), fetch, seconds=2)
    assert slow_one_has_begun.is_set()
    assert [thumbnail.problem for thumbnail in made] == ["", thumbnails.TOO_LATE, "", ""]
    never.set()


def test_no_rows_need_no_source() -> None:
    assert collect([], lambda source, rows: []) == []
