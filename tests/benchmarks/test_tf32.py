"""Emulated TensorFloat-32: what it rounds, in products of either direction, and what that does to the scores."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from regrad import Classifier, Scorer
from regrad.benchmarks.tf32 import emulated, rounded
from tests.networks import SIZE, build


def of(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_ten_bits_of_mantissa_are_left() -> None:
    step = 2.0**-10
    given = torch.tensor([1.0, 1 + 0.4 * step, 1 + 0.5 * step, 1 + 1.4 * step, -(1 + 0.5 * step), 0.0])
    assert rounded(given).tolist() == [1.0, 1.0, 1 + step, 1 + step, -(1 + step), 0.0]
    drawn = of(1000)
    wanted = torch.tensor([round(m * 2**11) / 2**11 for m in drawn.frexp().mantissa.tolist()])
    assert torch.equal(rounded(drawn), wanted * 2.0 ** drawn.frexp().exponent)
    assert torch.equal(rounded(rounded(drawn)), rounded(drawn))
    sliced = of(6, 8)[:, ::2].t()
    assert torch.equal(rounded(sliced), rounded(sliced.contiguous()))


def test_products_round_their_factors_and_not_what_is_added() -> None:
    a, b, c = of(3, 4), of(4, 5), of(5)
    x, w = of(2, 3, 8, 8), of(4, 3, 3, 3)
    with emulated():
        found = [a @ b, F.linear(a, b.t(), c), torch.einsum("ij,bjk->bik", a, of(2, 4, 6)), F.conv2d(x, w, of(4))]
    a, b, x, w = (rounded(each) for each in (a, b, x, w))
    plain = [a @ b, F.linear(a, b.t(), c), torch.einsum("ij,bjk->bik", a, rounded(of(2, 4, 6))), F.conv2d(x, w, of(4))]
    for got, wanted in zip(found, plain, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)


def test_backward_products_round_theirs() -> None:
    x, w, cotangent = of(2, 3, 8, 8), of(4, 3, 3, 3).requires_grad_(), of(2, 4, 6, 6)
    with emulated():
        (found,) = torch.autograd.grad(F.conv2d(x, w), w, cotangent)
    (wanted,) = torch.autograd.grad(F.conv2d(rounded(x), w), w, rounded(cotangent))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    (exact,) = torch.autograd.grad(F.conv2d(x, w), w, cotangent)
    assert (found - exact).abs().max() > 1e-4


def test_float64_is_left_alone() -> None:
    a, b = of(3, 4).double(), of(4, 5).double()
    with emulated():
        found = a @ b
    assert torch.equal(found, a @ b)


@pytest.mark.parametrize("engine", ["exact", "sketch"])
@pytest.mark.parametrize("name", ["narrow ResNet", "torchvision ViT"])
def test_scores_lie_between_those_of_float32_and_bfloat16(name: str, engine: str) -> None:
    classifier = Classifier(build(name, torch.float32), SIZE, mean=0.4, std=0.3)
    images = torch.rand(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    scores = ["regrad", "exgrad", "ungrad", "gradnorm", "exgrad_v"]

    def scorer(precision: str) -> Scorer:
        return Scorer(classifier, scores, engine=engine, samples=2, precision=precision)

    def scored(by: Scorer) -> torch.Tensor:
        found = by(images, list("abcdef"))
        return torch.stack([found[score] for score in scores])

    exact = scorer("float32")  # what it takes to begin, emulated, would take most of the time
    full, coarse = scored(exact), scored(scorer("bfloat16"))
    with emulated():
        between = scored(exact)
    error, allowed = (((other - full) / full).abs().amax(1) for other in (between, coarse))
    assert (error > 1e-6).all()
    assert error.max() < allowed.max()
