"""Images on their way to the device: from pinned memory, on a stream of their own, beside what is computed."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_interval(levels: Tensor) -> Tensor:
    """x / 255 in float32 of uint8 levels x, rounded alike on every device."""
    # By a tensor: by a number a GPU would multiply with the rounded 1 / 255.
    return levels.contiguous().float() / torch.full((), 255.0, device=levels.device)


class Upload:
    """Moves images to ``device``, where uint8 levels become numbers in [0, 1].

    What is computed with them waits for them; the host does not. On a device that is no GPU this is a plain ``to``.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def pinned(self, images: Tensor) -> Tensor:
        """``images`` where the GPU can fetch them by itself."""
        return images.pin_memory() if self._stream is not None and images.device.type == "cpu" else images

    def __call__(self, images: Tensor) -> Tensor:
        """``images``, :meth:`pinned` before, on the device, in [0, 1]."""
        arrived = self._arrived(images)
        return unit_interval(arrived) if arrived.dtype == torch.uint8 else arrived

    def _arrived(self, images: Tensor) -> Tensor:
        if self._stream is None:
            return images.to(self._device)
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            arrived = images.to(self._device, non_blocking=True)
        computing.wait_stream(self._stream)
        arrived.record_stream(computing)  # else its memory could be reused while it is still computed with
        return arrived
