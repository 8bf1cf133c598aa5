"""CIFAR-10 in one small file that NumPy and Pillow read: what is trained on is lossy, what is tested on is not."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

QUALITY = 95  # of WebP: some 750 bytes a picture of 32x32, a quarter of its pixels
TEST_IMAGES = 5000


@dataclass(frozen=True)
class Pictures:
    """Pixels, uint8 (n, H, W, 3), and class indices, int64 (n,)."""

    pixels: np.ndarray
    labels: np.ndarray


def write_pictures(train: str, test: str, path: str) -> None:
    """Write ``path`` from two inputs that ``regrad score`` would read, the first :data:`TEST_IMAGES` of ``test``."""
    columns: dict[str, np.ndarray] = {}
    for name, source, most in (("train", train, None), ("test", test, TEST_IMAGES)):
        encoded, labels = _read(source, most)
        contents = _encoded(encoded) if name == "train" else encoded
        columns[name] = np.frombuffer(b"".join(contents), np.uint8)
        columns[f"{name}_sizes"] = np.array([len(content) for content in contents], np.int64)
        columns[f"{name}_labels"] = np.array(labels, np.int64)
    with open(path, "wb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type]


def read_pictures(path: str, name: str) -> Pictures:
    """``train`` or ``test`` of the file."""
    with np.load(path) as columns:
        blob, sizes, labels = (columns[key] for key in (name, f"{name}_sizes", f"{name}_labels"))
    ends = np.cumsum(sizes)
    contents = [blob[end - size : end].tobytes() for end, size in zip(ends, sizes, strict=True)]
    with ThreadPoolExecutor() as threads:
        return Pictures(np.stack([*threads.map(_decoded, contents, chunksize=256)]), labels)


def _read(source: str, most: int | None) -> tuple[list[bytes], list[int]]:
    from regrad.reading.formats import fetch_images  # with Arrow, which reading the file does without
    from regrad.reading.inputs import list_sources

    (found,) = list_sources([source])
    labels: dict[int, int] = {}
    for sample in found.open().rows():
        if most is not None and len(labels) == most:
            break
        assert sample.row is not None
        assert sample.label is not None, f"{source}: {sample.id} has no label"
        labels[sample.row] = int(sample.label)
    contents = dict(fetch_images(source, dict.fromkeys(labels, "")))
    return [contents[row] for row in labels], [*labels.values()]


def _encoded(contents: Iterable[bytes]) -> Sequence[bytes]:
    def lossy(content: bytes) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(_decoded(content)).save(buffer, "WEBP", quality=QUALITY)
        return buffer.getvalue()

    with ThreadPoolExecutor() as threads:
        return [*threads.map(lossy, contents, chunksize=256)]


def _decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
