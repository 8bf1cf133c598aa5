"""Encoded bytes to the tensor a scorer takes, with every way a picture can be bad named by stage and reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from regrad import storage
from regrad.classifier import Classifier
from regrad.network.pictures import Preprocessing
from regrad.network.upload import unit_interval
from regrad.reading import images
from regrad.reading.images import DEFAULT_MAX_PIXELS
from regrad.reading.likeness import likeness


class BadImage(ValueError):
    """An image that cannot be scored: ``stage`` says where it stopped (decode or preprocess), ``reason`` why."""

    def __init__(self, stage: str, reason: str):
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason


def decode(content: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, least_side: int | None = None) -> Image.Image:
    """The picture in ``content``, upright as its EXIF orientation says; of an animation, the first frame.

    Args:
        least_side: decode a JPEG at a half, a quarter or an eighth of its sides, the least that are still so long.

    Raises:
        BadImage: no picture, a damaged one, or one of more than ``max_pixels`` (noticed before decoding).
    """
    try:
        image = images.open_image(content, max_pixels, "--max-pixels")
        if least_side:
            image.draft(image.mode, (least_side, least_side))  # without effect on other formats
        image.load()
    except images.Refused as error:
        raise BadImage("decode", str(error)) from error
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        raise BadImage("decode", storage.reason(error)) from error
    return images.upright(image)


def to_tensor(content: bytes, classifier: Classifier, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor:
    """The [0, 1] image (channels, H, W) that ``classifier`` makes of ``content``.

    Raises:
        BadImage: see :func:`decode`, or the classifier's preprocessing refused the picture.
    """
    return _made(classifier.preprocess, decode(content, max_pixels, classifier.preprocessing.least_side))


def to_compact(content: bytes, preprocessing: Preprocessing, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor:
    """The same in as few bytes as a scorer takes it: see :meth:`regrad.network.pictures.Preprocessing.compact`."""
    return _made(preprocessing.compact, decode(content, max_pixels, preprocessing.least_side))


@dataclass(frozen=True)
class Picture:
    """A decoded image, and what it looks like, where that was asked for."""

    tensor: Tensor
    looks: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class How:
    """How images are decoded ahead; ``looks``: whether it is asked what they look like."""

    preprocessing: Preprocessing
    max_pixels: int = DEFAULT_MAX_PIXELS
    looks: bool = False

    def picture(self, content: bytes) -> Picture:
        """The image by :func:`to_compact`, and its :func:`regrad.reading.likeness.likeness`."""
        image = to_compact(content, self.preprocessing, self.max_pixels)
        if not self.looks:
            return Picture(image)
        return Picture(image, likeness((unit_interval(image) if image.dtype == torch.uint8 else image).numpy()))


class Decoding(Protocol):
    """Decodes encoded images ahead of whoever needs them, by :meth:`How.picture`."""

    def submit(self, content: bytes) -> Future[Picture]:
        """The image as a future one; its result may be a :class:`BadImage`."""

    def flush(self) -> None:
        """Begin with all that was submitted: somebody is about to wait for it."""

    def shutdown(self) -> None:
        """Forget what was not begun."""


_LOCKED_SECONDS = 2e-4  # of an image's, in which Python lets no other thread go on; measured for 224x224 on 16 cores
_TRIED = 4  # images after which it is known how long one takes
_FEWEST = 2


def threads_worth(seconds: float, most: int) -> int:
    """How many of ``most`` threads decode at once images that take one so long, alone: more would wait for its lock.

    >>> threads_worth(0.7e-3, 16), threads_worth(0.05, 16), threads_worth(1e-5, 16), threads_worth(1.0, 1)
    (4, 16, 2, 2)
    """
    return max(_FEWEST, min(most, round(seconds / _LOCKED_SECONDS)))


class DecodingThreads:
    """:class:`Decoding` by threads of this process, as many at once as it is worth for these images."""

    def __init__(self, how: How, threads: int) -> None:
        self._how = how
        self._most = max(_FEWEST, threads)
        self._pool = ThreadPoolExecutor(self._most, "regrad-decode")
        self._free = threading.Semaphore(_FEWEST)
        self._tried: list[float] = []
        self._trying = threading.Lock()

    def submit(self, content: bytes) -> Future[Picture]:
        """See :class:`Decoding`."""
        return self._pool.submit(self._decoded, content)

    def _decoded(self, content: bytes) -> Picture:
        with self._free:
            started = time.thread_time()
            try:
                return self._how.picture(content)
            finally:
                if len(self._tried) < _TRIED:
                    self._note(time.thread_time() - started)

    def _note(self, seconds: float) -> None:
        """Once enough images were tried, let more threads decode if it is worth it."""
        with self._trying:
            self._tried.append(seconds)
            if len(self._tried) == _TRIED:
                for _ in range(threads_worth(min(self._tried), self._most) - _FEWEST):
                    self._free.release()

    def flush(self) -> None:
        """All was begun already."""

    def shutdown(self) -> None:
        """See :class:`Decoding`; what was begun is waited for."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _made(make: Callable[[Image.Image], Tensor], image: Image.Image) -> Tensor:
    try:
        return make(image)
    except Exception as error:  # a user's transform may raise anything
        raise BadImage("preprocess", storage.reason(error)) from error
