"""Images that a network cannot know, made from those that it knows: stand-ins for out-of-distribution data.

Every kind keeps something of the original and breaks the rest: ``patches`` keeps local structure, ``halves`` each half,
``corrupted`` the object behind a heavy corruption, ``pixels`` the colours, ``spectrum`` the mean and the amplitude of
every spatial frequency. Their sizes were set once, before any network had seen them.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from regrad.experiments.material.packs import Encoded, png

GRID = 4  # patches a side
LARGEST = 256  # shorter side: what is larger is brought to it first, so that a network's own resizing undoes nothing
NOISE, CONTRAST, BLUR, CELLS = 0.3, 0.1, 0.1, 8  # deviation; factor; radius over the side; cells a side

Pixels = npt.NDArray[np.float64]  # (H, W, C), 0 to 1
#: (the image, another one of the same size, random numbers) -> (H, W, C), clipped to 0 and 1 later.
Make = Callable[[Pixels, Pixels, np.random.Generator], Pixels]


def patches(own: Pixels, _: Pixels, rng: np.random.Generator) -> Pixels:
    """The ``GRID`` x ``GRID`` patches of the image in another order; a margin that they leave over stays."""
    height, width = (side // GRID for side in own.shape[:2])
    shuffled = own.copy()
    for place, origin in enumerate(rng.permutation(GRID * GRID)):
        (row, column), (top, left) = divmod(place, GRID), divmod(int(origin), GRID)
        shuffled[row * height : (row + 1) * height, column * width : (column + 1) * width] = own[
            top * height : (top + 1) * height, left * width : (left + 1) * width
        ]
    return shuffled


def halves(own: Pixels, other: Pixels, _: np.random.Generator) -> Pixels:
    """The left half of the image beside the right half of another."""
    middle = own.shape[1] // 2
    return np.concatenate([own[:, :middle], other[:, middle:]], axis=1)


def corrupted(own: Pixels, _: Pixels, rng: np.random.Generator) -> Pixels:
    """One heavy corruption, drawn: noise, blur, little contrast, coarse cells, or the negative."""
    return CORRUPTIONS[rng.integers(len(CORRUPTIONS))](own, rng)


def pixels(own: Pixels, _: Pixels, rng: np.random.Generator) -> Pixels:
    """All pixels of the image in another order."""
    return rng.permutation(own.reshape(-1, own.shape[2])).reshape(own.shape)


def spectrum(own: Pixels, _: Pixels, rng: np.random.Generator) -> Pixels:
    """The image's amplitudes with the phases of white noise, the same shift of phase in every channel."""
    phase = np.angle(np.fft.fft2(rng.standard_normal(own.shape[:2])))
    phase[0, 0] = 0  # the mean stays
    turned = np.fft.fft2(own, axes=(0, 1)) * np.exp(1j * phase)[..., None]
    return np.real(np.fft.ifft2(turned, axes=(0, 1)))


def _noisy(own: Pixels, rng: np.random.Generator) -> Pixels:
    return own + NOISE * rng.standard_normal(own.shape)


def _blurred(own: Pixels, _: np.random.Generator) -> Pixels:
    return _pixels_of(_image(own).filter(ImageFilter.GaussianBlur(BLUR * min(own.shape[:2]))))


def _flat(own: Pixels, _: np.random.Generator) -> Pixels:
    mean = own.mean((0, 1))
    return mean + CONTRAST * (own - mean)


def _coarse(own: Pixels, _: np.random.Generator) -> Pixels:
    size = (own.shape[1], own.shape[0])
    small = _image(own).resize((CELLS, CELLS), Image.Resampling.BOX)
    return _pixels_of(small.resize(size, Image.Resampling.NEAREST))


def _negative(own: Pixels, _: np.random.Generator) -> Pixels:
    return 1 - own


CORRUPTIONS = (_noisy, _blurred, _flat, _coarse, _negative)
KINDS: dict[str, Make] = {each.__name__: each for each in (patches, halves, corrupted, pixels, spectrum)}


def proxies(kind: str, rows: Sequence[Encoded]) -> list[Encoded]:
    """A proxy of each row, under its id and label: of itself and, for ``halves``, of the next row.

    Random numbers depend on kind and id alone.
    """
    opened = [_opened(image) for _, image, _ in rows]
    made = []
    for place, (key, _, label) in enumerate(rows):
        own = opened[place]
        other = opened[(place + 1) % len(opened)].resize(own.size)
        seed = hashlib.blake2b(f"{kind}\n{key}".encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(seed, "big"))
        values = KINDS[kind](_pixels_of(own), _pixels_of(other.convert(own.mode)), rng)
        made.append((key, png(_image(values)), label))
    return made


def _opened(data: bytes) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data))
    image = image if image.mode == "L" else image.convert("RGB")
    factor = min(LARGEST / min(image.size), 1)
    size = (round(factor * image.width), round(factor * image.height))
    return image.resize(size, Image.Resampling.BICUBIC)


def _pixels_of(image: Image.Image) -> Pixels:
    values = np.asarray(image, np.float64) / 255
    return values if values.ndim == 3 else values[..., None]


def _image(values: Pixels) -> Image.Image:
    whole = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    return Image.fromarray(whole[..., 0] if whole.shape[2] == 1 else whole)
