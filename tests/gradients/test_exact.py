"""The exact engine against the definition: float64 autograd, one image, one class at a time."""

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_leaves

from regrad.gradients import rules
from regrad.gradients.costs import ENOUGH, Costs
from regrad.gradients.exact import ExactEngine
from regrad.gradients.layers import find_layers, layer_weights
from regrad.gradients.recorded import uses
from regrad.gradients.reference import ReferenceEngine
from regrad.network.copies import private_copy
from regrad.network.operations import Operations
from tests.networks import NETWORKS, WITHOUT_RULE, SmallResNet, build, copies

LAMBDAS = (0.0, 0.3, math.inf)


def _both(name: str, number: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    network = build(name)
    x = copies(number=number)
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.stack([layer_weights(layers, decay) for decay in LAMBDAS])
    wanted = ReferenceEngine(private_copy(network), layers, weights)(x).squared
    engine = ExactEngine(private_copy(network.to(dtype)), layers, weights, x[:, 0].to(dtype))
    return engine(x.to(dtype)).squared, wanted


@pytest.mark.parametrize("number", [1, 4], ids=["clean", "smoothed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_reference_in_float64(name: str, number: int) -> None:
    got, wanted = _both(name, number, torch.float64)
    assert got.shape == wanted.shape == (len(LAMBDAS), 3, 5)
    torch.testing.assert_close(got.sqrt(), wanted.sqrt(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("number", [1, 4], ids=["clean", "smoothed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_reference_in_float32(name: str, number: int) -> None:
    got, wanted = _both(name, number, torch.float32)
    torch.testing.assert_close(got.sqrt(), wanted.sqrt(), rtol=1e-4, atol=0)


def test_further_targets_are_expected_gradients() -> None:
    """The norm for a distribution q is that of sum_c q_c g_c, from gradients that autograd makes."""
    network = build("BatchNorm CNN")
    x = copies()
    layers = find_layers(private_copy(network), x[:, 0])
    weights = layer_weights(layers, 0.3)
    uniform = torch.full((5,), 0.2, dtype=torch.float64)
    engine = ExactEngine(private_copy(network), layers, weights, x[:, 0])
    got = engine(x, targets=lambda log_p: torch.stack([uniform.expand_as(log_p), log_p.exp()], 1)).squared[0, :, 5:]
    clone = private_copy(network).requires_grad_(True)
    scale = {name: weight for layer, weight in zip(layers, weights, strict=True) for name in [layer.name]}
    for b, image in enumerate(x):
        log_p = clone(image).log_softmax(1)
        for e, q in enumerate([uniform, log_p[0].detach().exp()]):
            gradients = torch.autograd.grad((q * log_p.mean(0)).sum(), list(clone.parameters()), retain_graph=True)
            wanted = sum(
                (scale[name.rpartition(".")[0]] * gradient).square().sum()
                for (name, _), gradient in zip(clone.named_parameters(), gradients, strict=True)
            )
            torch.testing.assert_close(got[b, e], wanted, rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("name", ["BatchNorm CNN", "unknown layer"])
def test_targets_alone_are_those_that_stand_beside_the_classes(name: str) -> None:
    network, x = build(name), copies()
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.ones(len(layers))
    exact = ExactEngine(private_copy(network), layers, weights, x[:, 0], targets=2)
    for engine in (exact, ReferenceEngine(private_copy(network), layers, weights)):
        alone, beside = engine(x, two_targets, classes=False), engine(x, two_targets)
        assert alone.squared.shape == (1, 3, 2)
        torch.testing.assert_close(alone.squared, beside.squared[..., 5:], rtol=1e-9, atol=1e-20)
        torch.testing.assert_close(alone.logits, beside.logits, rtol=0, atol=0)


def two_targets(log_p: torch.Tensor) -> torch.Tensor:
    """The uniform distribution, and one that has half of its weight on the first class."""
    uniform = torch.full_like(log_p, 1 / log_p.shape[1])
    return torch.stack([uniform, (uniform + torch.eye(log_p.shape[1]).to(log_p)[0]) / 2], 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_without_a_rule_are_those_that_no_rule_knows(name: str) -> None:
    network = private_copy(build(name))
    x = copies()[:, 0]
    layers = find_layers(network, x)
    assert set(ExactEngine(network, layers, torch.ones(len(layers)), x).without_rule) == WITHOUT_RULE[name]


def test_a_vit_without_its_first_layers_needs_no_fallback() -> None:
    network = private_copy(build("timm ViT"))
    x = copies()[:, 0]
    layers = find_layers(network, x)
    weights = torch.tensor([float(layer.index > 1) for layer in layers])  # layer 1 owns class token and positions
    assert ExactEngine(network, layers, weights, x).without_rule == ()


def test_a_rule_that_disagrees_with_autograd_is_told_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores stay right, and the plan says what it costs."""

    def doubled(module: nn.Linear, x: torch.Tensor, images: int) -> dict[str, Any]:
        return rules.linear(module, 2 * x, images)

    monkeypatch.setitem(rules.RULES, nn.Linear, doubled)
    network, x = build("unknown layer"), copies()
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.ones(1, len(layers))
    engine = ExactEngine(private_copy(network), layers, weights, x[:, 0])
    assert set(engine.without_rule) == {*WITHOUT_RULE["unknown layer"], "wave.inner.weight", "fc.weight"}
    wanted = ReferenceEngine(private_copy(network), layers, weights)(x).squared
    torch.testing.assert_close(engine(x).squared, wanted, rtol=1e-9, atol=0)


def test_left_out_layers_build_no_graph() -> None:
    network = private_copy(build("ResNet"))
    x = copies()
    layers = find_layers(network, x[:, 0])
    engine = ExactEngine(network, layers, layer_weights(layers, math.inf), x[:, 0])
    seen = []
    network.layer4.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    engine(x)
    assert seen == [False]


def test_an_extra_convolution_by_function_is_found_by_the_self_check() -> None:
    class Twice(nn.Conv2d):
        """Uses its weight as its type does, and once more."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 0.5 * torch.nn.functional.conv2d(x * x, self.weight, None, padding=1)

    torch.manual_seed(0)
    network = nn.Sequential(Twice(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 16 * 16, 5)).double().eval()
    x = copies()
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.ones(1, len(layers))
    got = ExactEngine(private_copy(network), layers, weights, x[:, 0])(x).squared
    torch.testing.assert_close(
        got, ReferenceEngine(private_copy(network), layers, weights)(x).squared, rtol=1e-9, atol=0
    )


# -- targets at once ---------------------------------------------------------------------------------------------------

IN_A_LOOP = {"timm ViT", "torchvision ViT"}  # fused attention, whose derivative PyTorch cannot map on a CPU


def _at_once(network: nn.Module, x: torch.Tensor, most: int, **settings: Any) -> ExactEngine:
    """The exact engine with up to ``most`` targets at once, where there is memory for as many as one likes."""
    layers = find_layers(private_copy(network), x[:, 0])
    weights = torch.stack([layer_weights(layers, decay) for decay in LAMBDAS])
    engine = ExactEngine(private_copy(network), layers, weights, x[:, 0], x.shape[1], most, together=True, **settings)
    engine.afford(1 << 40)
    return engine


@pytest.mark.parametrize("most", [2, 5, 7])
@pytest.mark.parametrize("name", NETWORKS)
def test_targets_at_once_give_what_they_give_one_after_another(name: str, most: int) -> None:
    network, x = build(name), copies()
    engine = _at_once(network, x, most)
    assert engine.targets_at_once(x.shape[0] * x.shape[1]) == (1 if name in IN_A_LOOP else most)
    for classes in (True, False):
        engine.afford(1 << 40)
        together = engine(x, two_targets, classes)
        engine.afford(0)
        alone = engine(x, two_targets, classes)
        torch.testing.assert_close(together.squared, alone.squared, rtol=1e-9, atol=1e-20)
        torch.testing.assert_close(together.logits, alone.logits, rtol=0, atol=0)


def test_targets_at_once_in_bfloat16_are_as_exact_as_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "ResNet", partial(SmallResNet, width=64))  # a narrow one is coarse in itself
    network, x = build("ResNet"), copies()
    wanted = _at_once(network, x, 5)(x).squared.sqrt()
    engine = _at_once(build("ResNet", torch.float32), x.float(), 5)
    engine.convert(torch.bfloat16)
    errors = []
    for memory in (0, 1 << 40):
        engine.afford(memory)
        errors.append(float((engine(x.bfloat16()).squared.sqrt() / wanted - 1).abs().mean()))
    assert 1e-4 < errors[1] < 1.5 * errors[0] < 0.2


class ChangedInPlace(nn.Module):
    """Layers whose outputs are changed in place, in part and through a view, and one that is called for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.wide = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x[:, 0] *= 2
        x = self.norm(x)
        x.flatten(2)[:, :, ::2] += 1
        x = x.relu_().mean((2, 3))
        self.wide(x)
        return self.fc(self.wide(x).tanh_())


def test_outputs_changed_in_place_and_calls_for_nothing() -> None:
    torch.manual_seed(0)
    network, x = ChangedInPlace().double().eval(), copies()
    engine = _at_once(network, x, 5)
    assert engine.without_rule == engine.remarks == ()
    layers = find_layers(private_copy(network), x[:, 0])
    wanted = ReferenceEngine(private_copy(network), layers, engine.weights)(x).squared
    for memory, at_once in ((0, 1), (1 << 40, 5)):
        engine.afford(memory)
        assert engine.targets_at_once(12) == at_once
        torch.testing.assert_close(engine(x).squared, wanted, rtol=1e-9, atol=0)


def test_engines_side_by_side_go_on_with_targets_at_once() -> None:
    network, x = build("unknown layer"), copies()
    engine = _at_once(network, x, 5)
    (twin,) = engine.twins(1)
    wanted = engine(x).squared
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda own: [own(x).squared for _ in range(4)], (engine, twin)):
            for each in found:
                torch.testing.assert_close(each, wanted, rtol=1e-9, atol=1e-20)


class ByNumPy(torch.autograd.Function):
    """Twice its input, with a derivative that leaves PyTorch."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, d: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(2 * d.numpy())


class Tripled(torch.autograd.Function):
    """Its input, of many at once three times as much."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: torch.Tensor) -> Any:
        return 3 * x, in_dims[0]


class OfManyOtherwise(torch.autograd.Function):
    """Its input, with a derivative that is wrong for many at once."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, d: torch.Tensor) -> torch.Tensor:
        return Tripled.apply(d)


class Through(nn.Module):
    """Calls a function."""

    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function.apply(x)


@pytest.mark.parametrize(
    ("function", "why"), [(ByNumPy, "RuntimeError"), (OfManyOtherwise, "several at once give other numbers")]
)
def test_what_cannot_be_done_at_once_is_found_out_and_told(function: type[torch.autograd.Function], why: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), Through(function), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))
    network, x = network.double().eval(), copies()
    engine = _at_once(network, x, 5)
    (remark,) = engine.remarks
    assert remark.startswith(f"one class at a time: {why}")
    layers = find_layers(private_copy(network), x[:, 0])
    wanted = ReferenceEngine(private_copy(network), layers, engine.weights)(x).squared
    torch.testing.assert_close(engine(x).squared, wanted, rtol=1e-9, atol=0)


def test_a_loop_in_place_of_a_rule_of_pytorchs_is_told() -> None:
    remark = _at_once(build("timm ViT"), copies(), 5).remarks[-1]
    assert re.fullmatch(r"one class at a time: PyTorch has no batching rule for aten::_scaled_dot_product\w+", remark)


def test_on_a_cpu_targets_go_one_at_a_time() -> None:
    network, x = build("ResNet"), copies()
    layers = find_layers(private_copy(network), x[:, 0])
    engine = ExactEngine(private_copy(network), layers, torch.ones(len(layers)), x[:, 0])
    engine.afford(1 << 40)
    assert engine.targets_at_once(1) == 1
    assert engine.remarks == ()


@pytest.mark.parametrize(
    ("memory", "inputs", "at_once"),
    [
        (10 * (1000 + 9 * 100), 10, 10),  # all fit
        (10 * (1000 + 8 * 100), 10, 5),  # nine do, which makes two passes: of five
        (10 * (1000 + 3 * 100), 10, 4),
        (10 * 1099, 10, 1),
        (0, 10, 1),
        (1 << 60, ENOUGH // 20 // 3 + 1, 3),  # three make an operation large
        (1 << 60, ENOUGH // 20 + 1, 1),
    ],
)
def test_as_many_go_at_once_as_fit_and_save_launches(memory: int, inputs: int, at_once: int) -> None:
    assert Costs(targets=10, least=1000, further=100, output=20).targets_at_once(memory // inputs, inputs) == at_once


class Held(Operations):
    """Counts the bytes of what operations have made and somebody still holds."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        before = {value.untyped_storage().data_ptr() for value in tree_leaves((args, kwargs)) if _is_tensor(value)}
        for value in tree_leaves(made):
            if _is_tensor(value) and value.untyped_storage().data_ptr() not in before:
                reference = StorageWeakRef(value.untyped_storage())
                self._made[reference.cdata] = (reference, value.untyped_storage().nbytes())
        self._made = {key: held for key, held in self._made.items() if not held[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._made.values()))
        return made


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


@pytest.mark.parametrize(
    ("at_once", "worth_a_call"), [(1, 1 << 60), (2, 1 << 60), (5, 1 << 60), (1, 0)], ids=["1", "2", "5", "side by side"]
)
@pytest.mark.parametrize("name", ["ResNet", "BatchNorm CNN", "grouped and dilated"])
def test_what_is_held_at_once_was_planned(
    name: str, at_once: int, worth_a_call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "_WORTH_A_CALL", worth_a_call)  # never, as on a GPU, or always
    network, x = build(name), copies(images=4)
    engine = _at_once(network, x, 5)
    inputs = x.shape[0] * x.shape[1]
    engine.afford(inputs * (engine.bytes_per_input + (at_once - 1) * engine._costs.further))
    planned = engine.bytes_of(inputs)
    assert engine.targets_at_once(inputs) == {1: 1, 2: 2, 5: 5}[at_once]
    assert engine._costs.joined == (1 if worth_a_call else 5)  # for as many classes
    with Held() as held:
        engine(x)
    assert planned / 8 < held.most < planned


class Counted(Operations):
    """Of what makes new numbers; a view launches nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def _per_target(network: nn.Module, x: torch.Tensor, few: int, many: int, at_once: int) -> float:
    """Operations for each of so many targets more."""
    engine = _at_once(network, x, at_once)
    assert engine.targets_at_once(x.shape[0] * x.shape[1]) == at_once
    counts = []
    for targets in (few, many):
        with torch.no_grad():
            classes = network(x[0]).shape[1]
        cotangents = torch.eye(targets, classes, dtype=torch.float64).repeat(len(x), 1, 1)
        with Counted() as counted:
            engine(x, lambda log_p, q=cotangents: q, classes=False)
        counts.append(counted.count)
    return (counts[1] - counts[0]) / (many - few)


def test_a_class_costs_few_operations_a_parameter() -> None:
    """On a GPU each is a launch: about four for a parameter, the backward pass included, and few for all together."""
    network, x = build("ResNet"), copies(images=2, number=2)
    layers = find_layers(private_copy(network), x[:, 0])
    assert _per_target(network, x, 2, 12, 1) <= 4 * sum(len(layer.parameters) for layer in layers)


def test_ten_classes_at_once_cost_little_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a ResNet-18 226 operations a class, one after another; at once an eighth of that."""
    monkeypatch.setattr(uses, "_WORTH_A_CALL", 1 << 60)  # as on a GPU
    torch.manual_seed(0)
    network, x = torchvision.models.resnet18(num_classes=10).eval(), copies(2, 2, torch.float32)
    alone, together = (_per_target(network, x, 10, 20, at_once) for at_once in (1, 10))
    assert alone <= 235
    assert together <= 30
