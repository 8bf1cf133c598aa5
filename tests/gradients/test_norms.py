"""What an engine returns, taken apart and put together."""

from __future__ import annotations

import torch

from regrad.gradients.norms import ClassNorms


def _norms(images: int, draws: int = 0, seed: int = 0) -> ClassNorms:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(draws, 2, images, 5, generator=generator, dtype=torch.float64) if draws else None
    squared = torch.rand(2, images, 5, generator=generator, dtype=torch.float64) if drawn is None else drawn.mean(0)
    logits = torch.rand(images, 3, 5, generator=generator, dtype=torch.float64)
    return ClassNorms(squared, logits, None if drawn is None else 2 * squared.sqrt(), drawn)


def test_norms_are_roots_unless_the_engine_has_better_ones() -> None:
    plain, drawn = _norms(2), _norms(2, draws=4)
    assert plain.norms.tolist() == plain.squared.sqrt().tolist()
    assert drawn.norms.tolist() == (2 * drawn.squared.sqrt()).tolist()


def test_parts_of_a_batch_put_together_are_the_batch() -> None:
    for draws in (0, 4):
        first, second = _norms(2, draws, 1), _norms(3, draws, 2)
        whole = ClassNorms.of_parts([first, second])
        assert whole.logits.shape == (5, 3, 5)
        for name in ("squared", "roots", "draws"):
            value = getattr(whole, name)
            assert (value is None) == (name != "squared" and not draws)
            if value is not None:
                assert value[..., :2, :].tolist() == getattr(first, name).tolist()
                assert value[..., 2:, :].tolist() == getattr(second, name).tolist()


def test_a_part_keeps_a_weighting_and_some_targets() -> None:
    whole = _norms(2, draws=4)
    part = whole.part(1, slice(3, 5))
    assert part.squared.tolist() == whole.squared[1:, :, 3:].tolist()
    assert part.norms.tolist() == whole.norms[1:, :, 3:].tolist()
    assert part.draws is not None
    assert part.draws.shape == (4, 1, 2, 2)


def test_norms_without_a_draw_are_those_of_the_others() -> None:
    whole = _norms(2, draws=4)
    assert whole.draws is not None
    without = whole.norms_without_each()
    assert without is not None
    for j in range(4):
        others = whole.draws[[i for i in range(4) if i != j]].mean(0).sqrt()
        torch.testing.assert_close(without[j], others, rtol=1e-9, atol=0)
    assert _norms(2).norms_without_each() is None
