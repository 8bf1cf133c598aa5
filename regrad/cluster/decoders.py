"""Decoding on other processes and nodes, for workers whose own cores do not feed them.

Encoded images go out in chunks, levels of 255 come back; rows, their order, quarantine and commits stay the worker's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from ray import cloudpickle
from torch import Tensor

from regrad.cluster.handover import settle_in, surroundings
from regrad.pipeline import process
from regrad.pipeline.worker import UnitScorer
from regrad.reading.decode import BadImage, Decoding, How, Picture

CHUNK = 16  # images of a call
_LOOK_SECONDS = 0.5  # between looks at whether more decoders have started


@dataclass(frozen=True)
class Sent:
    """A picture as it travels: ``values`` of its image; None where it is bad, at this ``stage`` for this ``reason``."""

    values: np.ndarray | None
    looks: tuple[str | int, ...] = ()
    stage: str = ""
    reason: str = ""


@ray.remote(num_cpus=1, max_restarts=-1, scheduling_strategy="SPREAD")
class Decoder:
    """One process that decodes for any worker."""

    def __init__(self, environment: dict[str, str], paths: Sequence[str], how: bytes) -> None:
        settle_in(environment, paths)
        process.set_up(1)
        self._how: How = cloudpickle.loads(how)

    def ready(self) -> None:
        """Answers as soon as it can work."""

    def decode(self, contents: Sequence[bytes]) -> list[Sent]:
        """Each of ``contents``, in order."""
        return [self._decoded(content) for content in contents]

    def _decoded(self, content: bytes) -> Sent:
        try:
            picture = self._how.picture(content)
        except BadImage as bad:
            return Sent(None, (), bad.stage, bad.reason)
        return Sent(packed(picture.tensor), tuple(picture.looks))


def packed(image: Tensor) -> np.ndarray:
    """An image as it travels: levels with channels last, as they lie in memory, so that they are not copied."""
    return (image.permute(1, 2, 0) if image.dtype == torch.uint8 else image).numpy()


def unpacked(values: np.ndarray) -> Tensor:
    """The image again, in memory that can be written to."""
    image = torch.from_numpy(values.copy())
    return image.permute(2, 0, 1) if image.dtype == torch.uint8 else image


@contextmanager
def started(count: int, how: How) -> Iterator[list[Any]]:
    """As many decoders, wherever there are CPUs for them; they end with the context."""
    packed_how = cloudpickle.dumps(how)
    decoders = [Decoder.remote(*surroundings(), packed_how) for _ in range(count)]  # type: ignore[attr-defined]
    try:
        yield decoders
    finally:
        for decoder in decoders:
            ray.kill(decoder)


class DecodingActors:
    """:class:`Decoding` by decoders that several workers share, and by threads here for what they do not do.

    Until one has started, and where one is lost, images are decoded here, so that nothing waits for a cluster that is
    too small, and nothing is lost with a node.

    Args:
        decoders: from :func:`started`.
        chunk: images of a call; at most as many as a batch has, since a batch may wait for all of them.
        here: decodes in this process.
        say: told, once, that a decoder was lost.
    """

    def __init__(self, decoders: Sequence[Any], chunk: int, here: Decoding, say: Callable[[str], None]) -> None:
        self._starting = {decoder.ready.remote(): decoder for decoder in decoders}
        self._under_way: dict[Any, int] = {}  # calls of each that has started
        self._chunk, self._here, self._say = chunk, here, say
        self._kept: list[tuple[bytes, Future[Picture]]] = []
        self._looked = 0.0
        self._lost = self._ended = False
        self._lock = threading.Lock()  # calls end in a thread of Ray's

    def submit(self, content: bytes) -> Future[Picture]:
        """See :class:`Decoding`."""
        image = Future[Picture]()
        self._kept.append((content, image))
        if len(self._kept) >= self._chunk:
            self.flush()
        return image

    def flush(self) -> None:
        """See :class:`Decoding`."""
        kept, self._kept = self._kept, []
        if not kept:
            return
        with self._lock:
            self._look()
            decoder = min(self._under_way, key=lambda each: self._under_way[each], default=None)
            if decoder is not None:
                self._under_way[decoder] += 1
        if decoder is None:
            self._decode_here(kept)
            return
        call = decoder.decode.remote([content for content, _ in kept]).future()
        call.add_done_callback(lambda ended: self._arrived(decoder, kept, ended))

    def shutdown(self) -> None:
        """See :class:`Decoding`."""
        self._ended = True
        for _, image in self._kept:
            image.cancel()
        self._here.shutdown()

    def _look(self) -> None:
        """Take in the decoders that have started since."""
        if self._starting and time.monotonic() - self._looked > _LOOK_SECONDS:
            most, seconds = (len(self._starting), 0.0) if self._looked else (1, _LOOK_SECONDS)  # one will do to begin
            answered, _ = ray.wait([*self._starting], num_returns=most, timeout=seconds)
            for reference in answered:
                decoder = self._starting.pop(reference)
                try:
                    ray.get(reference)
                    self._under_way[decoder] = 0
                except ray.exceptions.RayError:  # it is lost, and may come back
                    self._starting[decoder.ready.remote()] = decoder
            self._looked = time.monotonic()

    def _arrived(self, decoder: Any, kept: Sequence[tuple[bytes, Future[Picture]]], call: Future[list[Sent]]) -> None:
        lost = call.exception() is not None
        with self._lock:
            if decoder in self._under_way:
                self._under_way[decoder] -= 1
                if lost:  # with the fewest calls under way it would be given all of them
                    del self._under_way[decoder]
                    self._starting[decoder.ready.remote()] = decoder
            tell, self._lost = lost and not self._lost, self._lost or lost
        if tell:
            self._say("a process that decodes for others was lost: its images are decoded by the worker itself")
        if lost:
            if not self._ended:
                self._decode_here(kept)
            return
        for (_, image), sent in zip(kept, call.result(), strict=True):
            if sent.values is None:
                image.set_exception(BadImage(sent.stage, sent.reason))
            else:
                image.set_result(Picture(unpacked(sent.values), sent.looks))

    def _decode_here(self, kept: Sequence[tuple[bytes, Future[Picture]]]) -> None:
        for content, image in kept:
            self._here.submit(content).add_done_callback(partial(_pass_on, image))


def _pass_on(image: Future[Picture], ended: Future[Picture]) -> None:
    if ended.cancelled():
        image.cancel()
    elif error := ended.exception():
        image.set_exception(error)
    else:
        image.set_result(ended.result())


def by_decoders(decoders: Sequence[Any]) -> Callable[[UnitScorer], Decoding]:
    """What :class:`UnitScorer` takes as ``decoding``."""

    def decoding(scorer: UnitScorer) -> Decoding:
        return DecodingActors(decoders, min(CHUNK, scorer.batch_size), scorer.threads(), scorer.note)

    return decoding
