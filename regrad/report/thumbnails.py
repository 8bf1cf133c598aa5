"""Small copies of the images a report shows, fetched from their sources and made to travel inside the page."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from regrad import storage

SIDE = 160
# Below this side WebP's lossless mode is as small as the lossy one, and shows every pixel as the model saw it.
LOSSLESS_SIDE = 64
MAX_PIXELS = 100_000_000
PAGE_BYTES = 18_000_000  # of all pictures of a page; plotly and the page itself take about 6 MB more

#: ``fetch(source, rows)`` gives the encoded images of some rows of one shard; rows it cannot find are absent.
Fetch = Callable[[str, Sequence[int]], Mapping[int, bytes]]


@dataclass(frozen=True)
class Thumbnail:
    """An image as a ``data:`` URI, or the reason why there is none."""

    uri: str | None
    width: int = 0
    height: int = 0
    problem: str = ""


def limit(pictures: int) -> int:
    """How many characters one of ``pictures`` thumbnails may take for all of them to fit on a page."""
    return PAGE_BYTES // max(pictures, 1)


def collect(
    rows: Sequence[Mapping[str, Any]], fetch: Fetch, limit: int = PAGE_BYTES, threads: int = 8
) -> list[Thumbnail]:
    """One thumbnail per row, in order; sources are read in parallel, and a failure costs only its own pictures.

    Args:
        rows: dictionaries with ``source`` and ``row``.
        fetch: reads encoded images back, see :data:`Fetch`; whatever it raises becomes the picture's ``problem``.
        limit: characters that one thumbnail may take, see :func:`limit`.
        threads: how many sources are read at once.
    """
    wanted: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        wanted[row["source"]].add(row["row"])
    with ThreadPoolExecutor(threads) as pool:
        made = pool.map(lambda source: _of_source(source, sorted(wanted[source]), fetch, limit), wanted)
        by_source = dict(zip(wanted, made, strict=True))
    return [by_source[row["source"]][row["row"]] for row in rows]


def shrink(encoded: bytes, side: int = SIDE, limit: int = PAGE_BYTES) -> Thumbnail:
    """The image file ``encoded``, its longer side at most ``side``; smaller ones keep their size.

    A picture of more than ``limit`` characters is made smaller until it fits.

    Raises:
        ValueError: too many pixels to decode safely.
        OSError: not an image, or a damaged one.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        image.draft(None, (2 * side, 2 * side))  # a JPEG decodes straight to a fraction of its size
        small = _displayable(image)
    while True:
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", lossless=max(small.size) <= LOSSLESS_SIDE, quality=80)
        uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        if len(uri) <= limit or side <= 8:
            return Thumbnail(uri, small.width, small.height)
        side = side * 3 // 4


def _of_source(source: str, rows: Sequence[int], fetch: Fetch, limit: int) -> dict[int, Thumbnail]:
    try:
        encoded = fetch(source, rows)
    except Exception as error:  # a report is still worth having when one shard has gone
        return {row: Thumbnail(None, problem=storage.reason(error)) for row in rows}
    return {row: _try_shrink(encoded.get(row), limit) for row in rows}


def _try_shrink(encoded: bytes | None, limit: int) -> Thumbnail:
    if encoded is None:
        return Thumbnail(None, problem="not in its source any more")
    try:
        return shrink(encoded, limit=limit)
    except Exception as error:  # damaged files make Pillow raise errors of many kinds
        return Thumbnail(None, problem=storage.reason(error))


def _displayable(image: Image.Image) -> Image.Image:
    """``image`` as RGB or RGBA; grey of 16 bits or floats is scaled to 8 bits, which Pillow would clip to white."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray((values * (255 / max(values.max(initial=0), 255))).clip(0, 255).astype(np.uint8), "L")
    transparent = "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa")
    return image.convert("RGBA" if transparent else "RGB")
