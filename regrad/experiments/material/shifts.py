"""Shifts of which it is known how large they are: images changed, mixed in or left out, and nights drawn with them.

    OUT/drift/IMAGES/SHIFT/WHO.json   what came of each draw, by who asked: more draws go on with those that are there

Nothing here needs torch: another library can be asked about the same draws where there is none.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from regrad import storage
from regrad.experiments.material.packs import Encoded, png
from regrad.experiments.power import Drawable, draw_night


def _brighter(by: float) -> Callable[[Image.Image], bytes]:
    return lambda image: png(ImageEnhance.Brightness(image).enhance(1 + by))


def _blurred(image: Image.Image) -> bytes:
    return png(image.filter(ImageFilter.GaussianBlur(0.4)))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


#: What is done to every image of a night.
CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "brighter-3": _brighter(0.03),
    "brighter-10": _brighter(0.1),
    "blurred": _blurred,
    "jpeg-75": _jpeg,
}


def changed(change: str, rows: Sequence[Encoded]) -> list[Encoded]:
    """Each row changed, under its id and label."""
    make = CHANGES[change]
    return [(key, make(Image.open(io.BytesIO(data)).convert("RGB")), label) for key, data, label in rows]


@dataclass(frozen=True)
class Shift:
    """What is different in a night.

    Attributes:
        title: as tables call it.
        images: of :data:`CHANGES`, or an image set that the network does not know.
        share: of the night's images that are such.
        missing: share of one class's images that do not come in, another class each time.
    """

    title: str
    images: str | None = None
    share: float = 1.0
    missing: float = 0.0

    def image_set(self, known: str) -> str | None:
        """The image set that ``images`` are of where ``known`` is that of the baseline."""
        return f"{known}-{self.images}" if self.images in CHANGES else self.images


_C100 = "cifar100-not-cifar10"
NOTHING = "nothing"
SHIFTS = {
    NOTHING: Shift("nothing"),
    "brighter-3": Shift("brightness +3 %", "brighter-3"),
    "brighter-10": Shift("brightness +10 %", "brighter-10"),
    "blurred": Shift("blur, radius 0.4", "blurred"),
    "jpeg-75": Shift("another encoder: JPEG 75", "jpeg-75"),
    "svhn-1": Shift("1 % SVHN", "svhn", 0.01),
    "svhn-5": Shift("5 % SVHN", "svhn", 0.05),
    "svhn-10": Shift("10 % SVHN", "svhn", 0.1),
    "c100-5": Shift("5 % C100", _C100, 0.05),
    "c100-10": Shift("10 % C100", _C100, 0.1),
    "half-a-class": Shift("half of a class missing", missing=0.5),
    "a-class": Shift("a class missing", missing=1.0),
}


@dataclass(frozen=True)
class Nights:
    """How many nights are drawn.

    Attributes:
        images: of the baseline, and of the night.
        known: the image set that both are drawn from.
        held: how many images of it there are to draw from.
        unchanged, changed: draws where nothing is different, and of each shift.
    """

    images: int
    known: str
    held: int
    unchanged: int
    changed: int

    def draws(self, shift: str) -> int:
        """How many of this one of :data:`SHIFTS`."""
        return self.unchanged if shift == NOTHING else self.changed

    @property
    def about(self) -> dict[str, Any]:
        """What a draw depends on beside its number, the shift and ``images``."""
        return {"known": self.known, "held": self.held}


#: The test set is too small for two sides of 5,000 of which one lacks a class.
NIGHTS = (
    Nights(200, "cifar10", 10_000, 400, 100),
    Nights(1000, "cifar10", 10_000, 400, 100),
    Nights(5000, "cifar10-train", 50_000, 130, 30),
    Nights(20_000, "cifar10-train", 50_000, 60, 20),
)


def draw_shifted(
    known: Drawable, others: Drawable | None, images: int, shift: Shift, number: int
) -> tuple[Drawable, Drawable]:
    """The ``number``-th baseline and night of ``images`` each; all shifts of one number have the same baseline.

    Args:
        others: the images of :meth:`Shift.image_set`.

    Raises:
        UsageError: there are not that many.
    """
    rng = np.random.default_rng([images, number])
    without = number % (1 + int(known.labels.max())) if shift.missing else None
    return draw_night(known, others, images, shift.share, without, rng, 1 - shift.missing)


def draws_file(output: str, images: int, shift: str, who: str) -> str:
    """Where :func:`keep_draws` keeps what came of the draws of one of :data:`SHIFTS`."""
    return storage.join(output, "drift", str(images), shift, f"{who}.json")


def keep_draws(uri: str, about: Mapping[str, Any], draws: Sequence[Any]) -> None:
    """What came of each draw, with what it depends on; both as JSON can tell them."""
    storage.write_atomically(uri, json.dumps({"about": about, "draws": draws}).encode())


def kept_draws(uri: str, about: Mapping[str, Any]) -> list[Any]:
    """What :func:`keep_draws` left of the same ``about``, a list that is the caller's; empty where there is none."""
    folder, _, name = uri.rpartition("/")
    if name not in storage.list_files(folder, ".json"):
        return []
    held = json.loads(storage.read_bytes(uri))
    return list(held["draws"]) if held["about"] == about else []
