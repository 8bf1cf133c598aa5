"""Every layer rule against autograd, entry by entry and image by image, in float64.

A rule that is wrong costs a scorer time and never correctness, since the engine checks it and leaves its parameters to
autograd. So it is here that a wrong rule fails; and a rule without a case fails too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from timm.layers import norm
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.linear import Linear
from timm.layers.norm_act import BatchNormAct2d, GroupNormAct
from torch import Tensor, nn
from torchvision.models import convnext

from regrad.gradients import rules
from regrad.gradients.recorded.uses import OuterSums, outer_sum
from regrad.gradients.rules import REMADE, RULES, Direct, Outer, find_rule
from regrad.network.alike import SAME, qualified_name

IMAGES, TARGETS = 3, 2
REGISTERED = tuple(RULES)  # before any test registers a rule of its own
Input = Callable[[int], Tensor]  # from the number of rows, what the module is called with


def rows_of(*shape: int) -> Input:
    """Real inputs (rows, *shape)."""
    return lambda rows: torch.randn(rows, *shape, dtype=torch.float64)


def numbers_below(count: int, *shape: int) -> Input:
    """Whole numbers (rows, *shape)."""
    return lambda rows: torch.randint(0, count, (rows, *shape))


def linears() -> Iterator[tuple[str, nn.Module, Input]]:
    for bias, shape in product((True, False), ((), (7,), (3, 2))):
        yield f"positions {shape}, bias {bias}", nn.Linear(5, 4, bias=bias), rows_of(*shape, 5)


def convolutions(kind: type[nn.Conv1d | nn.Conv2d], *sides: int) -> Iterator[tuple[str, nn.Module, Input]]:
    """Kernels, strides, padding, dilation, groups and padding modes; uneven ones where there are two sides."""
    settings: list[dict[str, Any]] = [
        {"kernel_size": 3},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 4, "padding": "same"},
        {"kernel_size": 3, "padding": "valid"},
        {"kernel_size": min(sides)},
        {"kernel_size": 3, "groups": 2, "padding": 1},
        {"kernel_size": 1, "groups": 4},
        {"kernel_size": 3, "groups": 4, "stride": 3, "dilation": 2, "padding": 1},
        *({"kernel_size": 3, "padding": 1, "padding_mode": mode} for mode in ("reflect", "replicate", "circular")),
    ]
    if len(sides) == 2:
        settings += [
            {"kernel_size": (3, 5), "stride": (1, 2), "padding": (2, 1), "dilation": (2, 1)},
            {"kernel_size": (1, 3), "groups": 2, "padding": (0, 1), "padding_mode": "circular"},
        ]
    for number, setting in enumerate(settings):
        out, bias = (8 if number % 2 else 12), number % 3 != 0
        yield f"{setting}, bias {bias}", kind(4, out, bias=bias, **setting), rows_of(4, *sides)


def batch_norms(kind: type[nn.modules.batchnorm._BatchNorm], *shapes: tuple[int, ...]) -> Any:
    for shape in shapes:
        module = kind(4, eps=1e-2)
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
        yield f"positions {shape}", module, rows_of(4, *shape)


def layer_norms() -> Iterator[tuple[str, nn.Module, Input]]:
    shapes = (((5,), ()), ((5,), (7,)), ((5,), (3, 2)), ((4, 5), (6,)), ((4, 5), ()), ((2, 3, 4), ()))
    for (normalized, before), bias in product(shapes, (True, False)):
        module = nn.LayerNorm(normalized, eps=1e-2, bias=bias)
        yield f"{normalized} after {before}, bias {bias}", module, rows_of(*before, *normalized)


def group_norms() -> Iterator[tuple[str, nn.Module, Input]]:
    for groups, shape in product((1, 2, 6), ((5,), (3, 4), (2, 3, 2))):
        yield f"{groups} groups, positions {shape}", nn.GroupNorm(groups, 6, eps=1e-2), rows_of(6, *shape)


def embeddings() -> Iterator[tuple[str, nn.Module, Input]]:
    for padding, shape in product((None, 0, -2), ((), (8,), (3, 4))):
        yield f"padding {padding}, positions {shape}", nn.Embedding(5, 3, padding), numbers_below(5, *shape)


def same_padding() -> Iterator[tuple[str, nn.Module, Input]]:
    for number, (size, stride, dilation) in enumerate(product((1, 3, (2, 5)), (1, 2, (3, 1)), (1, 2))):
        setting = {"stride": stride, "dilation": dilation, "groups": 1 + number % 2, "bias": number % 3 != 0}
        yield f"kernel {size}, {setting}", Conv2dSame(4, 6, size, **setting), rows_of(4, 7, 8)


def norms_with_activation() -> Iterator[tuple[str, nn.Module, Input]]:
    for activation in (nn.ReLU, nn.SiLU, nn.Tanh, nn.Identity):
        for _, module, make in batch_norms(BatchNormAct2d, (3, 4)):
            module.act = activation()
            yield activation.__name__, module, make


def changed_to(kind: type[nn.Module], cases: Iterator[tuple[str, nn.Module, Input]]) -> Any:
    """The same cases for a type that computes the same."""
    for label, module, make in cases:
        module.__class__ = kind
        module._fast_norm = False
        yield label, module, make


def channels_first(kind: type[nn.LayerNorm]) -> Iterator[tuple[str, nn.Module, Input]]:
    for eps in (1e-2, 1e-6):
        yield f"eps {eps}", kind(5, eps=eps), rows_of(5, 3, 4)


CASES: dict[type[nn.Module], list[tuple[str, nn.Module, Input]]] = {
    nn.Linear: list(linears()),
    nn.Conv1d: list(convolutions(nn.Conv1d, 9)),
    nn.Conv2d: list(convolutions(nn.Conv2d, 7, 9)),
    nn.BatchNorm1d: list(batch_norms(nn.BatchNorm1d, (), (5,))),
    nn.BatchNorm2d: list(batch_norms(nn.BatchNorm2d, (3, 4))),
    nn.BatchNorm3d: list(batch_norms(nn.BatchNorm3d, (2, 3, 2))),
    nn.SyncBatchNorm: list(changed_to(nn.SyncBatchNorm, batch_norms(nn.BatchNorm2d, (3, 4)))),
    BatchNormAct2d: list(norms_with_activation()),
    nn.LayerNorm: list(layer_norms()),
    convnext.LayerNorm2d: list(channels_first(convnext.LayerNorm2d)),
    norm.LayerNorm2d: list(channels_first(norm.LayerNorm2d)),
    nn.GroupNorm: list(group_norms()),
    nn.Embedding: list(embeddings()),
    Conv2dSame: list(same_padding()),
    Linear: list(changed_to(Linear, linears())),
    norm.LayerNorm: list(changed_to(norm.LayerNorm, layer_norms())),
    norm.GroupNorm: list(changed_to(norm.GroupNorm, group_norms())),
    norm.GroupNorm1: list(changed_to(norm.GroupNorm1, group_norms())),
}


def test_every_rule_has_a_case() -> None:
    """A rule without one could be wrong without a word: add its layer to ``CASES``."""
    alike = {name for names in SAME.values() for name in names}
    assert {*REGISTERED, *alike} == {kind if kind in RULES else qualified_name(kind) for kind in CASES}


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("kind", CASES, ids=qualified_name)
def test_a_rule_is_what_autograd_gives(kind: type[nn.Module], copies: int) -> None:
    for label, module, make in CASES[kind]:
        torch.manual_seed(0)
        module = module.double().eval()
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        x = make(IMAGES * copies)
        for layout in (x, x.to(memory_format=torch.channels_last)) if x.dim() == 4 else (x,):
            _compare(label, module, layout, copies)


def _compare(label: str, module: nn.Module, x: Tensor, copies: int) -> None:
    """Each image's gradient of sum(D y), as the rule has it, with autograd's of the image's copies alone.

    For one D, and mapped over several, as where classes go at once.
    """
    several = torch.randn(TARGETS, *module(x).shape, dtype=torch.float64)
    factors = _factors(module, x, IMAGES)
    parameters = dict(module.named_parameters())
    assert set(parameters) <= set(factors), label
    rows: dict[str, list[Tensor]] = {name: [] for name in parameters}
    for d in several:
        for own, its in zip(x.split(copies), d.split(copies), strict=True):
            gradients = torch.autograd.grad((module(own) * its).sum(), list(parameters.values()))
            for name, gradient in zip(parameters, gradients, strict=True):
                rows[name].append(gradient.flatten())
    for name in parameters:
        wanted = torch.stack(rows[name]).unflatten(0, (TARGETS, IMAGES))
        for way, gradient_of in _ways(factors[name], several[0]).items():
            for mapped, found in ((False, gradient_of(several[0])[None]), (True, torch.vmap(gradient_of)(several))):
                torch.testing.assert_close(
                    found,
                    wanted if mapped else wanted[:1],
                    rtol=1e-9,
                    atol=1e-11,
                    msg=lambda text, said=(label, name, way, mapped): f"{said}: {text}",
                )


def _factors(module: nn.Module, x: Tensor, images: int) -> dict[str, Outer | Direct]:
    rule = find_rule(module)
    assert rule is not None, module
    return rule(module, x, images)


def _ways(factor: Outer | Direct, d: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Every way of a factor from D to the gradient, (images, entries); what must agree inside it is compared."""
    if isinstance(factor, Direct):
        return {"directly": factor.gradient}
    inputs, rows = factor.inputs(), factor.rows(d)
    groups, positions, d_in, d_out = factor.shape
    assert inputs.shape == (IMAGES, groups, positions, d_in)
    assert rows.shape == (IMAGES, groups, positions, d_out)
    assert factor.inputs(slice(1, 3)).equal(inputs[1:3])
    own = inputs if factor.columns is None else inputs[..., factor.columns()]
    if factor.gram is not None:
        torch.testing.assert_close(factor.gram(), inputs @ inputs.mT, rtol=1e-9, atol=1e-11)
    return {
        "as outer products": lambda d: outer_sum(factor.rows(d), own).flatten(1),
        "as outer products of all": lambda d: OuterSums.apply(factor.rows(d), own).flatten(1),
    }


@pytest.mark.parametrize("kind", [kind for kind in CASES if RULES.get(kind) in REMADE], ids=qualified_name)
def test_an_output_made_anew_is_the_same_and_has_the_same_derivative(kind: type[nn.Module]) -> None:
    for label, module, make in CASES[kind]:
        torch.manual_seed(0)
        module = module.double().eval()
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        x = make(IMAGES).requires_grad_(True)
        y = module(x)
        other = REMADE[RULES[kind]](module, x, y)
        d = torch.randn_like(y)
        torch.testing.assert_close(other, y, rtol=0, atol=0, msg=label)
        (wanted,), (found,) = torch.autograd.grad(y, x, d), torch.autograd.grad(other, x, d)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_every_way_of_a_factor_is_met() -> None:
    """Gram matrices from pixels, and inputs of images by themselves, are in the cases, and so compared."""
    outer = [
        factor
        for cases in CASES.values()
        for _, module, make in cases
        for factor in _factors(module.double().eval(), make(IMAGES), IMAGES).values()
        if isinstance(factor, Outer)
    ]
    assert {factor.gram is None for factor in outer} == {True, False}
    assert {factor.columns is None for factor in outer} == {True}
    last = [*_factors(nn.Conv2d(3, 4, 2), torch.zeros(2, 3, 5, 5).to(memory_format=torch.channels_last), 2).values()]
    assert isinstance(last[0], Outer)
    assert last[0].columns is not None
    assert {factor.by_image for factor in outer} == {True, False}


# -- whom a rule is for ------------------------------------------------------------------------------------------------


class Renamed(nn.Linear):
    """Inherits, and changes nothing of the function."""

    def extra_repr(self) -> str:
        return "renamed"


class Doubled(nn.Linear):
    """Inherits, and computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Standardised(nn.Conv2d):
    """Computes something else by a method that its forward calls."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


def test_a_rule_is_for_its_type_and_for_what_keeps_the_methods_of_it() -> None:
    assert find_rule(nn.Linear(2, 2)) is rules.linear
    assert find_rule(Renamed(2, 2)) is rules.linear
    assert find_rule(norm.LayerNorm(2)) is rules.layer_norm
    assert find_rule(norm.LayerNorm2d(2)) is rules.channels_first_layer_norm


@pytest.mark.parametrize(
    "module",
    [Doubled(2, 2), Standardised(2, 2, 1), norm.LayerNormFp32(2), GroupNormAct(4, 2), nn.InstanceNorm2d(2)],
    ids=lambda module: type(module).__name__,
)
def test_a_type_that_merely_inherits_has_no_rule(module: nn.Module) -> None:
    assert find_rule(module) is None


def test_a_module_with_a_forward_of_its_own_has_no_rule() -> None:
    module = nn.Linear(2, 2)
    module.forward = lambda x: x  # type: ignore[method-assign]
    assert find_rule(module) is None


def test_a_rule_of_ones_own_is_for_its_type_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES", dict(RULES))

    @rules.rule(Doubled)
    def doubled(module: Doubled, x: Tensor, images: int) -> dict[str, Outer | Direct]:
        return rules.linear(module, 2 * x, images)

    class Other(Doubled):
        def forward(self, x: Tensor) -> Tensor:
            return x

    assert find_rule(Doubled(2, 2)) is doubled
    assert find_rule(Other(2, 2)) is None
    assert find_rule(nn.Linear(2, 2)) is rules.linear
