"""Random directions over parameters: their moments, and the root of a mean of squares."""

from __future__ import annotations

import math

import pytest
import torch

from regrad.gradients.sketching import directions
from regrad.gradients.sketching.directions import corrected_root


def test_directions_are_uncorrelated_with_unit_variance() -> None:
    """E v v^T = 1 over seeds, for rows that share signs and for independent entries."""
    values = {"weight": torch.zeros(300, 2), "bias": torch.zeros(300)}
    for rows in (300, 301):
        total = torch.zeros(6, 6)
        for seed in range(100):
            drawn = values if rows == 300 else {name: value[:299] for name, value in values.items()}
            block = directions.draw_block("fc", 0, drawn, 2, seed)
            moved = block.moved({name: draw[0] for name, draw in block.draws.items()})
            v = torch.cat([moved["fc.weight"], moved["fc.bias"][:, None]], 1)
            pairs = torch.cat([v[0:298:2], v[1:299:2]], 1)  # two rows side by side
            total += pairs.T @ pairs / len(pairs) / 100
        torch.testing.assert_close(total, torch.eye(6), atol=5 * math.sqrt(2 / 14900), rtol=0)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("k", [8, 16, 64])
def test_the_corrected_root_has_no_bias(k: int, share: float) -> None:
    """Monte Carlo: E of the norm for T = (1 - share) + share chi^2_k / k, true norm 1."""
    generator = torch.Generator().manual_seed(0)
    x = share * torch.randn(200_000, k, generator=generator, dtype=torch.float64).square().mean(1)
    exact = torch.full_like(x, 1 - share)
    norms = corrected_root(exact, x, k)
    error = 5 * float(norms.std()) / len(x) ** 0.5 + 1e-12
    left = 0.0 if share in (0, 1) else share**2 / k**2  # the order that the correction leaves
    assert abs(float(norms.mean()) - 1) < error + left
    if share >= 0.5:  # and without it the test would fail
        assert 1 - float((exact + x).sqrt().mean()) > error + left
