"""Every score against an independent implementation of its formula in float64, on a CNN and on a ViT."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from regrad import Classifier, Scorer, perturb
from regrad.gradients.layers import find_layers, layer_weights
from regrad.network.copies import private_copy
from regrad.scores import SCORES
from tests.networks import SIZE, build

NETWORKS = ("BatchNorm CNN", "torchvision ViT")
FAMILIES = [name for name, score in SCORES.items() if score.compute.__module__.startswith("regrad.scores.")]
NAMES = [name for name in FAMILIES if not SCORES[name].fitted]  # those have tests of their own
MEAN, STD, SAMPLES, DECAY, SEED, DRAWS = 0.4, 0.3, 2, 0.3, 3, 4
IDS = ["one", "two", "three"]


def images() -> Tensor:
    return torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def network_of(name: str) -> nn.Module:
    return build(name).requires_grad_(True)


@pytest.fixture(scope="module", params=NETWORKS)
def scored(request: pytest.FixtureRequest) -> tuple[str, dict[str, Tensor]]:
    classifier = Classifier(build(request.param), SIZE, mean=MEAN, std=STD)
    settings: dict[str, Any] = {"samples": SAMPLES, "depth_decay": DECAY, "seed": SEED, "draws": DRAWS}
    scorer = Scorer(classifier, NAMES, tolerance=0, engine="exact", theta_sigma=1e-2, **settings)
    return request.param, scorer(images(), IDS)


def gradients(network: nn.Module, copies: Tensor, decay: float) -> Tensor:
    """a * g_c of one image, one row a class: (C, P)."""
    layers = find_layers(private_copy(network), copies[:1].repeat(2, 1, 1, 1) + torch.arange(2)[:, None, None, None])
    modules = dict(network.named_modules())
    weights = layer_weights(layers, decay).tolist()
    parameters = [getattr(modules[layer.name], key) for layer in layers for key in layer.parameters]
    scales = [a for layer, a in zip(layers, weights, strict=True) for _ in layer.parameters]
    log_p = network(copies).log_softmax(1).mean(0)
    rows = []
    for value in log_p:
        found = torch.autograd.grad(value, parameters, retain_graph=True)
        rows.append(torch.cat([a * g.flatten() for a, g in zip(scales, found, strict=True)]))
    return torch.stack(rows)


def noisy(x: Tensor, name: str) -> Tensor:
    noise = perturb.normal(perturb.keys(SEED, [name]), SAMPLES, x.numel()).double().reshape(SAMPLES, *x.shape)
    return torch.cat([x[None], x[None] + 0.02 * noise])


def norms(network: nn.Module, x: Tensor, name: str, smoothed: bool, decay: float) -> Tensor:
    return gradients(network, noisy(x, name) if smoothed else x[None], decay).norm(dim=1)


def displaced(network: nn.Module, x: Tensor) -> Tensor:
    """By the gradient of each difference of two logits, which is no difference of gradients."""
    z, y = network(x[None])[0], int(network(x[None]).argmax())
    layers = find_layers(private_copy(network), x[None].repeat(2, 1, 1, 1) + torch.arange(2)[:, None, None, None])
    modules = dict(network.named_modules())
    own = [[getattr(modules[layer.name], key) for key in layer.parameters] for layer in layers]
    weights = layer_weights(layers, DECAY).tolist()
    logarithms = []
    for c in range(len(z)):
        if c != y:
            squares = [
                a**2 * sum(g.square().sum() for g in torch.autograd.grad(z[y] - z[c], group, retain_graph=True))
                for a, group in zip(weights, own, strict=True)
            ]
            logarithms.append(((z[y] - z[c]) / torch.stack(squares).sum().sqrt()).log())
    return -torch.stack(logarithms).mean()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


def information(draws: list[Tensor]) -> Tensor:
    p = torch.stack(draws)
    mean = p.mean(0)
    return -(mean * mean.log()).sum() + (p * p.log()).sum(1).mean()


def perturb_x(network: nn.Module, x: Tensor, name: str, p: Tensor) -> Tensor:
    return torch.stack([divergence(network(y[None]).softmax(1)[0], p) for y in noisy(x, name)[1:]]).mean()


def perturb_theta(network: nn.Module, x: Tensor, name: str, p: Tensor) -> Tensor:
    values = []
    for k in range(DRAWS):
        moved = {
            key: value
            + 1e-2
            * perturb.normal(perturb.keys(SEED, [f"{k}:{key}"], "parameters"), 1, value.numel()).reshape(value.shape)
            for key, value in network.named_parameters()
        }
        values.append(divergence(functional_call(network, moved, (x[None],)).softmax(1)[0], p))
    return torch.stack(values).mean()


def mc_aa(network: nn.Module, x: Tensor, name: str, p: Tensor) -> Tensor:
    leaf = x[None].clone().requires_grad_(True)
    F.nll_loss(network(leaf).log_softmax(1), p.argmax()[None]).backward()
    assert leaf.grad is not None
    sign = leaf.grad.sign()
    steps = [0.02 * (2 * t / (DRAWS - 1) - 1) for t in range(DRAWS)]
    return information([network(x[None] + step * sign).softmax(1)[0] for step in steps])


def inserted_dropout(network: nn.Module, x: Tensor, name: str, p: Tensor) -> Tensor:
    """Masks as documented, put in by replacing forward functions one by one."""
    kinds = (nn.Conv2d, nn.Linear)
    modules = [(key, module) for key, module in network.named_modules() if isinstance(module, kinds)]
    called: list[str] = []
    for key, module in modules:
        module.register_forward_pre_hook(lambda _, args, key=key: called.append(key))
    network(x[None])
    first, draws, found = called[0], [0], []

    def replace(key: str, module: Any) -> None:
        plain, axis = module.forward, -1 if isinstance(module, nn.Linear) else 1

        def forward(y: Tensor) -> Tensor:
            u = perturb.uniform(perturb.keys(SEED, [name], f"dropout:{draws[0]}:{key}"), 1, y.shape[axis])[0, 0]
            kept = (u >= 0.1).double() / 0.9
            return plain(y * (kept if axis == -1 else kept[:, None, None]))

        module.forward = forward

    for key, module in modules:
        if key != first and key in called:
            replace(key, module)
    for draws[0] in range(DRAWS):
        found.append(network(x[None]).softmax(1)[0])
    return information(found)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def head_of(network: nn.Module) -> nn.Linear:
    (*_, last) = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return last


def features(network: nn.Module, x: Tensor) -> list[float]:
    seen: list[Tensor] = []
    handle = head_of(network).register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(x[None])
    handle.remove()
    (numbers,) = seen[0].tolist()
    return list(numbers)


def energy_of(network: nn.Module, numbers: list[float]) -> Tensor:
    head = head_of(network)
    products = [sum(w * h for w, h in zip(row, numbers, strict=True)) for row in head.weight.tolist()]
    z = [product + b for product, b in zip(products, head.bias.tolist(), strict=True)]
    return number(-max(z) - math.log(sum(math.exp(value - max(z)) for value in z)))


def shaped(network: nn.Module, x: Tensor, left_out: float, prune: bool) -> Tensor:
    h = features(network, x)
    threshold = sorted(h)[round(left_out * len(h))]  # the smallest that is kept
    factor = math.exp(sum(v for v in h if v > 0) / sum(v for v in h if v > 0 and v >= threshold))
    return energy_of(network, [v * factor if v >= threshold or not prune else 0.0 for v in h])


def fdbd(network: nn.Module, x: Tensor) -> Tensor:
    z, weight = network(x[None])[0].tolist(), head_of(network).weight.tolist()
    y = z.index(max(z))
    distances = [(z[y] - z[c]) / math.dist(weight[y], weight[c]) for c in range(len(z)) if c != y]
    return number(-sum(distances) / len(distances) / math.hypot(*features(network, x)))


def l1_of_head(network: nn.Module, x: Tensor) -> Tensor:
    own = list(head_of(network).parameters())
    log_p = network(x[None]).log_softmax(1)[0]
    norms = [sum(g.abs().sum() for g in torch.autograd.grad(v, own, retain_graph=True)) for v in log_p]
    return sum((v.exp() * n for v, n in zip(log_p, norms, strict=True)), start=log_p.new_zeros(()))


GRADIENT: dict[str, Callable[[nn.Module, Tensor, str, Tensor], Tensor]] = {
    "regrad": lambda f, x, name, p: (p.sqrt() * norms(f, x, name, True, DECAY)).sum(),
    "regrad_layers": lambda f, x, name, p: (p.sqrt() * norms(f, x, name, False, DECAY)).sum(),
    "regrad_plain": lambda f, x, name, p: (p.sqrt() * norms(f, x, name, False, 0)).sum(),
    "exgrad": lambda f, x, name, p: (p * norms(f, x, name, False, 0)).sum(),
    "exgrad_layers": lambda f, x, name, p: (p * norms(f, x, name, False, DECAY)).sum(),
    "exgrad_smoothed": lambda f, x, name, p: (p * norms(f, x, name, True, DECAY)).sum(),
    "ungrad": lambda f, x, name, p: norms(f, x, name, False, 0).mean(),
    "negrad": lambda f, x, name, p: (p[:, None] * gradients(f, x[None], 0)).sum(0).norm(),
    "gradnorm": lambda f, x, name, p: gradients(f, x[None], 0).mean(0).norm(),
    "gradnorm_negated": lambda f, x, name, p: -gradients(f, x[None], 0).mean(0).norm(),
    "displacement": lambda f, x, name, p: displaced(f, x),
    "perturb_x": perturb_x,
    "perturb_theta": perturb_theta,
    "mc_aa": mc_aa,
    "inserted_dropout": inserted_dropout,
    "entropy": lambda f, x, name, p: -(p * p.log()).sum(),
    "exgrad_v": lambda f, x, name, p: -(p - 1 / len(p)).abs().sum(),
    "max_probability": lambda f, x, name, p: -p.max(),
    "margin": lambda f, x, name, p: p.sort().values[-2] - p.max(),
    "max_logit": lambda f, x, name, p: -f(x[None]).max(),
    "energy": lambda f, x, name, p: -f(x[None]).exp().sum().log(),
    "gen": lambda f, x, name, p: number(sum((q * (1 - q)) ** 0.1 for q in p.tolist())),
    "ash": lambda f, x, name, p: shaped(f, x, 0.90, prune=True),
    "scale": lambda f, x, name, p: shaped(f, x, 0.85, prune=False),
    "feature_norm": lambda f, x, name, p: number(-math.hypot(*features(f, x))),
    "fdbd": lambda f, x, name, p: fdbd(f, x),
    "exgrad_l1_last": lambda f, x, name, p: l1_of_head(f, x),
}


@pytest.mark.parametrize("score", NAMES)
def test_a_score_is_its_formula(scored: tuple[str, dict[str, Tensor]], score: str) -> None:
    name, columns = scored
    network = network_of(name)
    wanted = []
    for image, own in zip(images(), IDS, strict=True):
        x = (image - MEAN) / STD
        p = network(x[None]).softmax(1)[0].detach()
        wanted.append(GRADIENT[score](build(name) if score == "inserted_dropout" else network, x, own, p).detach())
    got = columns[score]
    atol = 1e-7 if score == "negrad" else 1e-13  # the root of a rounded zero
    torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-6, atol=atol)
    if score != "negrad":
        assert float(got.abs().min()) > 1e-12
        assert len(set(got.tolist())) == 3


def test_the_exponent_weighs_the_classes_of_regrad() -> None:
    classifier = Classifier(build("BatchNorm CNN"), SIZE, mean=MEAN, std=STD)
    settings: dict[str, Any] = {"samples": SAMPLES, "seed": SEED, "tolerance": 0, "engine": "exact"}
    columns = Scorer(classifier, ("regrad", "exgrad_smoothed"), exponent=0.25, **settings)(images(), IDS)
    network = network_of("BatchNorm CNN")
    wanted = []
    for image, own in zip(images(), IDS, strict=True):
        x = (image - MEAN) / STD
        p = network(x[None]).softmax(1)[0].detach()
        wanted.append((p**0.25 * norms(network, x, own, True, DECAY)).sum())
    torch.testing.assert_close(columns["regrad"], torch.stack(wanted), rtol=1e-6, atol=1e-13)
    expected = Scorer(classifier, ("regrad", "exgrad_smoothed"), exponent=1.0, **settings)(images(), IDS)
    torch.testing.assert_close(expected["regrad"], columns["exgrad_smoothed"], rtol=1e-12, atol=0)


def test_negrad_is_zero_beside_the_gradients(scored: tuple[str, dict[str, Tensor]]) -> None:
    _, columns = scored
    assert float((columns["negrad"] / columns["ungrad"]).max()) < 1e-5


def test_the_chain_of_inequalities_holds_for_what_is_computed(scored: tuple[str, dict[str, Tensor]]) -> None:
    _, columns = scored
    for low, high in (("exgrad", "regrad_plain"), ("exgrad_layers", "regrad_layers"), ("exgrad_smoothed", "regrad")):
        assert bool((columns[low] <= columns[high]).all())
        assert bool((columns[low] <= (-columns["max_probability"]).sqrt() * columns[high] * (1 + 1e-12)).all())


# -- what the paper proves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_noise_is_not_perturbed(name: str) -> None:
    classifier = Classifier(build(name), SIZE, mean=MEAN, std=STD)
    names = ("perturb_x", "perturb_theta", "mc_aa", "inserted_dropout")
    found = Scorer(classifier, names, sigma=0, samples=2, theta_sigma=0, dropout_rate=0, draws=3)(images(), IDS)
    for score in names:
        torch.testing.assert_close(found[score], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_small_parameter_noise_measures_the_fisher_matrix() -> None:
    """Proposition 3.5 sharply: KL / sigma^2 -> 1/2 d^T F d = 1/2 sum_c p_c (g_c . d)^2, of every draw d ~ N(0, I).

    Its mean over draws is half the trace of F, sum_c p_c ||g_c||^2 / 2; with the draws at hand nothing is chance.
    """
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 6), nn.Tanh(), nn.Linear(6, 5)).double().eval()
    pictures = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigma, draws = 1e-4, 100
    classifier = Classifier(network, 4, mean=0.0, std=1.0)
    settings: dict[str, Any] = {"theta_sigma": sigma, "draws": draws, "seed": SEED}
    measured = Scorer(classifier, ("perturb_theta",), **settings)(pictures, IDS)["perturb_theta"]
    keys = [
        perturb.keys(SEED, [f"{k}:{name}" for k in range(draws)], "parameters")
        for name, _ in network.named_parameters()
    ]
    sizes = [value.numel() for value in network.parameters()]
    d = torch.cat([perturb.normal(key, 1, size)[:, 0].double() for key, size in zip(keys, sizes, strict=True)], dim=1)
    network.requires_grad_(True)
    for image, value in zip(pictures, measured.tolist(), strict=True):
        p = network(image[None]).softmax(1)[0].detach()
        of_draws = (d @ gradients(network, image[None], 0).T).square() @ p / 2
        assert value / sigma**2 == pytest.approx(float(of_draws.mean()), rel=1e-3)


def test_an_input_perturbation_is_one_of_a_linear_first_layer() -> None:
    """Proposition 3.3 exactly: f(x, W + W dx x^T / ||x||^2) = f(x + dx, W)."""
    torch.manual_seed(0)
    first = nn.Linear(48, 6).double()
    network = nn.Sequential(nn.Flatten(), first, nn.Tanh(), nn.Linear(6, 5).double()).eval()
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64)
    found = Scorer(Classifier(network, 4, mean=0.0, std=1.0), ("perturb_x",), samples=3, seed=SEED)(x, IDS)["perturb_x"]
    for image, name, value in zip(x, IDS, found.tolist(), strict=True):
        noise = perturb.normal(perturb.keys(SEED, [name]), 3, 48)[0].double() * 0.02
        flat = image.flatten()
        p = network(image[None]).softmax(1)[0]
        moved = [
            {"1.weight": first.weight + torch.outer(first.weight @ dx, flat) / flat.square().sum()} for dx in noise
        ]
        wanted = [divergence(functional_call(network, one, (image[None],)).softmax(1)[0], p) for one in moved]
        assert value == pytest.approx(float(torch.stack(wanted).mean().detach()), rel=1e-9)


def test_exgrad_bounds_what_small_parameter_noise_changes() -> None:
    """Proposition 3.5 as it stands: E KL(p || p_k) <= sum_c p_c ||g_c|| E ||d_k||, for small d_k."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 6), nn.Tanh(), nn.Linear(6, 5)).double().eval()
    pictures = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigma = 1e-3
    classifier = Classifier(network, 4, mean=0.0, std=1.0)
    found = Scorer(classifier, ("perturb_theta", "exgrad"), theta_sigma=sigma, draws=500, tolerance=0)(pictures, IDS)
    length = sigma * math.sqrt(sum(value.numel() for value in network.parameters()))  # E ||d|| is at most that
    assert bool((found["perturb_theta"] <= found["exgrad"] * length).all())


def test_gradnorm_falls_with_uncertainty() -> None:
    """||mean_c g_c|| = ||J^T (p - 1/C)||: zero where p is uniform, which is why its own paper reads it negated."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 6), nn.Tanh(), nn.Linear(6, 5)).double().eval()
    x = torch.rand(3, 3, 4, 4, dtype=torch.float64)
    norms = []
    for scale in (0.0, 1.0, 10.0):  # of the logits: from uniform to confident
        scaled = nn.Sequential(*network[:3], nn.Linear(6, 5).double()).eval()
        scaled[3].load_state_dict({name: scale * value for name, value in network[3].state_dict().items()})
        names = ("gradnorm", "gradnorm_negated", "max_probability")
        norms.append(Scorer(Classifier(scaled, 4, mean=0.0, std=1.0), names, tolerance=0)(x, IDS))
    torch.testing.assert_close(norms[0]["gradnorm"], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)
    for low, high in itertools.pairwise(norms):
        assert bool((low["gradnorm"] < high["gradnorm"]).all())
        assert bool((low["max_probability"] > high["max_probability"]).all())
        assert bool((low["gradnorm_negated"] == -low["gradnorm"]).all())
