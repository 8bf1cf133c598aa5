"""Small copies of the images a report shows, fetched from their sources and made to travel inside the page."""

from __future__ import annotations

import base64
import io
import itertools
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from regrad import storage
from regrad.reading import images

SIDE = 160
# Below this side WebP's lossless mode is as small as the lossy one, and shows every pixel as the model saw it.
LOSSLESS_SIDE = 64
MAX_PIXELS = 100_000_000
PAGE_BYTES = 18_000_000  # of all pictures of a page; plotly and the page itself take about 6 MB more

SECONDS = 120.0  # a store that hangs must not hold up a report
THREADS = 8
GONE = "not in its source any more"
TOO_LATE = "not fetched in time"

#: ``fetch(source, {row: id})`` gives ``(row, encoded image)`` for rows of one shard; those it cannot find are absent.
Fetch = Callable[[str, Mapping[int, str]], Iterable[tuple[int, bytes]]]


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
    wanted: Mapping[str, Sequence[Mapping[str, Any]]],
    fetch: Mapping[str, Fetch],
    limit: int = PAGE_BYTES,
    seconds: float = SECONDS,
) -> dict[str, list[Thumbnail]]:
    """One thumbnail per row, in order; sources are read in parallel, and a failure costs only its own pictures.

    Args:
        wanted: set -> dictionaries with ``source``, ``row`` and ``id``.
        fetch: set -> what reads encoded images back, see :data:`Fetch`; what it raises becomes ``problem``.
        limit: characters that one thumbnail may take, see :func:`limit`.
        seconds: for all of them; pictures that take longer have :data:`TOO_LATE` for their ``problem``.
    """
    shards: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for name, rows in wanted.items():
        for row in rows:
            shards[name, row["source"]][row["row"]] = row["id"]
    waiting: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for shard in shards:
        waiting.put(shard)
    made: dict[tuple[str, str, int], Thumbnail] = {}
    over = threading.Event()

    def work() -> None:
        while not over.is_set() and not waiting.empty():
            try:
                name, source = waiting.get_nowait()
            except queue.Empty:
                return
            for row, thumbnail in _of_source(source, dict(sorted(shards[name, source].items())), fetch[name], limit):
                made[name, source, row] = thumbnail
                if over.is_set():
                    return

    # Daemons, unlike the threads of an executor, do not keep the process alive while a store hangs.
    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(THREADS, len(shards)))]
    end = time.monotonic() + seconds
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()))
    over.set()
    late = Thumbnail(None, problem=TOO_LATE)
    return {name: [made.get((name, row["source"], row["row"]), late) for row in rows] for name, rows in wanted.items()}


def collect_all(
    parts: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]], fetch: Mapping[str, Fetch], seconds: float = SECONDS
) -> list[dict[str, list[Thumbnail]]]:
    """:func:`collect` for several parts of one page, in the ``seconds`` of one, as small as all of them must be."""
    names = dict.fromkeys(name for part in parts for name in part)
    wanted = {name: [row for part in parts for row in part.get(name, ())] for name in names}
    fetched = collect(wanted, fetch, limit(sum(map(len, wanted.values()))), seconds)
    left = {name: iter(pictures) for name, pictures in fetched.items()}
    return [{name: list(itertools.islice(left[name], len(rows))) for name, rows in part.items()} for part in parts]


def shrink(encoded: bytes, side: int = SIDE, limit: int = PAGE_BYTES) -> Thumbnail:
    """The image file ``encoded`` as it was scored: upright. Its longer side is at most ``side``; smaller ones stay.

    A picture of more than ``limit`` characters is made smaller until it fits.

    Raises:
        images.Refused: no image, or one of too many pixels.
        Exception: of many kinds, for a damaged one.
    """
    with images.open_image(encoded, MAX_PIXELS) as image:
        image.draft(None, (2 * side, 2 * side))  # a JPEG decodes straight to a fraction of its size
        small = _displayable(images.upright(image))
    while True:
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", lossless=max(small.size) <= LOSSLESS_SIDE, quality=80)
        uri = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        if len(uri) <= limit or side <= 8:
            return Thumbnail(uri, small.width, small.height)
        side = side * 3 // 4


def _of_source(source: str, rows: Mapping[int, str], fetch: Fetch, limit: int) -> Iterator[tuple[int, Thumbnail]]:
    missing, problem = set(rows), GONE
    try:
        for row, encoded in fetch(source, rows):
            missing.discard(row)
            yield row, _try_shrink(encoded, limit)
    except Exception as error:  # a report is still worth having when one shard has gone
        problem = storage.reason(error)
    for row in missing:
        yield row, Thumbnail(None, problem=problem)


def _try_shrink(encoded: bytes, limit: int) -> Thumbnail:
    try:
        return shrink(encoded, limit=limit)
    except images.Refused as error:
        return Thumbnail(None, problem=str(error))
    except Exception as error:
        return Thumbnail(None, problem=storage.reason(error))


def _displayable(image: Image.Image) -> Image.Image:
    """``image`` as RGB or RGBA. Grey of 16 bits and floats, which Pillow would clip, are scaled to 8 bits."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        scale = 255 if image.mode == "F" else 255 / max(values.max(initial=0), 255)  # floats go from 0 to 1
        image = Image.fromarray((values * scale).clip(0, 255).astype(np.uint8), "L")
    transparent = "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa")
    return image.convert("RGBA" if transparent else "RGB")
