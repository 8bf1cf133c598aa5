"""Images on their way to the device, on a machine that has none and on a pretended one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regrad.network.upload import Upload, unit_interval
from tests.pretended import pretended_gpu


def test_levels_are_divided_as_numpy_does_it() -> None:
    levels = np.arange(256, dtype=np.uint8)
    wanted = levels.astype(np.float32) / np.float32(255)
    assert np.array_equal(unit_interval(torch.from_numpy(levels)).numpy(), wanted)


def test_levels_arrive_as_floats_in_the_usual_order_and_floats_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 4, 5, 3).permute(0, 3, 1, 2)
    floats = unit_interval(levels)
    with pretended_gpu(monkeypatch) as waits:
        upload = Upload(torch.device("cuda"))
        for images in (levels, floats):
            arrived = upload(upload.pinned(images))
            assert arrived.device.type == "cuda"
            assert arrived.is_contiguous()
            assert waits == []
            assert torch.equal(arrived.cpu(), floats)
            waits.clear()
    assert torch.equal(Upload(torch.device("cpu"))(levels), floats)
