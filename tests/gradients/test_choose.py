"""Engine, cut and directions: sizes counted by hand, and the choice that follows from them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from regrad.gradients import choose, cut
from regrad.gradients.layers import find_layers, layer_weights
from regrad.network.copies import private_copy
from regrad.network.probe import probe_images
from tests.networks import build

WIDE = 300  # more rows than directions.SHARED_ROWS


def perceptron(classes: int) -> nn.Module:
    """12 -> 20 -> WIDE -> classes."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, WIDE), nn.ReLU(), nn.Linear(WIDE, classes)
    ).eval()


def passes(network: nn.Module, copies: int = 11, first: int = 1) -> tuple[list, list[choose.Pass], torch.Tensor]:
    inputs = probe_images(4, 3, (2, 2)) if isinstance(network, nn.Sequential) else probe_images(4, 3, (16, 16))
    layers = find_layers(private_copy(network), inputs[:3])
    weights = layer_weights(layers, 0.3)[None] * torch.tensor([float(layer.index >= first) for layer in layers])
    return layers, [choose.Pass(copies, weights)], inputs


def test_costs_are_those_counted_by_hand() -> None:
    network = perceptron(7)
    layers, wanted, inputs = passes(network)
    sizes = [12 * 20, 20 * WIDE, WIDE * 7]
    total = sum(sizes)
    # The head and, behind which each unit goes its own way to it, the layer before have closed forms; nobody asks for
    # the gradient of the image.
    products = min(11 * 11 * (20 + 12 / 7), 11 * 12 * 20) / 11
    cost = choose.estimate(network, layers, wanted, inputs, directions=16)
    assert cost["exact"] == pytest.approx(1 + 7 * ((total - sizes[0] + products) / total + choose.A_PASS), abs=0.01)
    unshared = sizes[0] + sizes[2]
    assert cost["sketch"] == pytest.approx(1 + 16 * (total + unshared) / total, abs=0.01)


def test_targets_alone_cost_a_backward_pass_each() -> None:
    network = perceptron(1000)
    layers, (classes,), inputs = passes(network, copies=1)
    (of_one,) = passes(network, copies=1)[1]
    of_one = replace(of_one, targets=1, classes=0)
    cost = choose.estimate(network, layers, [of_one], inputs, 16)
    assert cost["exact"] < 4 < choose.estimate(network, layers, [classes], inputs, 16)["exact"] / 100
    plan = choose.resolve(network, "auto", layers, of_one.weights[0], [of_one], inputs, 0.0, 16)
    assert plan["engine"] == "exact"
    twice = choose.estimate(network, layers, [replace(classes, classes=2)], inputs, 16)["exact"]
    assert twice == pytest.approx(2 * choose.estimate(network, layers, [classes], inputs, 16)["exact"], rel=0.01)


def test_few_targets_are_counted_without_closed_forms() -> None:
    network = perceptron(5)
    layers, (item,), inputs = passes(network, copies=1)
    sizes = [12 * 20, 20 * WIDE, WIDE * 5]
    products = [
        min(d_out + d_in / targets, d_in * d_out) for targets in (1, 3) for d_in, d_out in ((12, 20), (20, WIDE))
    ]
    for targets, own in ((1, sum(products[:2])), (3, products[2])):
        cost = choose.estimate(network, layers, [replace(item, targets=targets, classes=0)], inputs, 16)
        backward = (sum(sizes) - sizes[0] + own) / sum(sizes) + choose.A_PASS
        assert cost["exact"] == pytest.approx(1 + targets * backward, abs=0.006)


def test_what_is_left_out_costs_nothing_and_a_clean_pass_a_copys_share() -> None:
    network = perceptron(7)
    layers, tail, inputs = passes(network, first=3)
    assert choose.estimate(network, layers, tail, inputs, 16)["exact"] < 12
    both = [*tail, choose.Pass(1, torch.ones(1, 3))]
    clean = choose.estimate(network, layers, [choose.Pass(1, torch.ones(1, 3))], inputs, 16)
    found = choose.estimate(network, layers, both, inputs, 16)
    assert found["exact_clean"] == pytest.approx(clean["exact"] / 11, abs=0.02)
    alone = choose.estimate(network, layers, tail, inputs, 16)
    assert found["exact"] == pytest.approx(alone["exact"] + clean["exact"] / 11, abs=0.02)
    assert "exact_clean" not in alone


@pytest.mark.parametrize(("classes", "engine"), [(5, "exact"), (1000, "sketch")])
def test_auto_takes_the_sketch_for_many_classes(classes: int, engine: str) -> None:
    network = perceptron(classes)
    layers, wanted, inputs = passes(network)
    plan = choose.resolve(network, "auto", layers, wanted[0].weights[0], wanted, inputs, 0.0, 16)
    assert plan["engine"] == engine
    assert plan.get("directions") == (16 if engine == "sketch" else None)
    assert (plan["cost"]["exact"] > choose.WORTH * plan["cost"]["sketch"]) == (engine == "sketch")
    assert f"{plan['cost']['exact']:.3g} forward passes with exact" in plan["why"]


def test_the_engine_asked_for_is_taken() -> None:
    network = build("ResNet", torch.float32)
    layers, wanted, inputs = passes(network)
    for engine in ("exact", "sketch", "reference"):
        plan = choose.resolve(network, engine, layers, wanted[0].weights[0], wanted, inputs, 2e-3, 8)
        assert plan["engine"] == engine
        assert (plan["first_layer"] > 1) == (engine != "reference")


def test_rows_without_decay_are_not_cut() -> None:
    layers, _, _ = passes(perceptron(5))
    weights = torch.stack([layer_weights(layers, 0.3), torch.ones(3, dtype=torch.float64)])
    (kept,) = choose.kept(layers, [choose.Pass(1, weights)], {"first_layer": 3})
    assert (kept.weights > 0).tolist() == [[False, False, True], [True, True, True]]


def test_classes_have_several_depths_where_scores_add_them_up() -> None:
    network = build("ResNet", torch.float32)
    layers, (item,), inputs = passes(network)
    item = replace(item, weights=layer_weights(layers, 0.1)[None])  # so that the cut leaves some layers
    several, alone = replace(item, powers=(0.5,)), replace(item, powers=())
    plan = choose.resolve(network, "exact", layers, item.weights[0], [several], inputs, 2e-3, 8)
    first = [depth["first_layer"] for depth in plan["depths"]["each"]]
    assert first == sorted(set(first))
    assert first[0] == plan["first_layer"]
    assert plan["left_out"] + plan["depths"]["most"] == pytest.approx(2 * 2e-3, rel=1e-3)
    behind = [i for i, layer in enumerate(layers) if layer.index >= plan["first_layer"]]
    decayed = item.weights[0, behind]
    shares = cut.layer_shares(private_copy(network), [layers[i] for i in behind], decayed, inputs, power=0)
    for depth in plan["depths"]["each"]:
        left_out = sum(float(s) for i, s in zip(behind, shares, strict=True) if layers[i].index < depth["first_layer"])
        assert depth["left_out"] == pytest.approx(left_out, rel=1e-3)
    assert "of less probable classes fewer" in plan["why"]
    assert json.loads(json.dumps(plan)) == plan
    one = choose.resolve(network, "exact", layers, item.weights[0], [alone], inputs, 2e-3, 8)
    assert "depths" not in one
    assert plan["cost"]["exact"] < one["cost"]["exact"]
    (kept,) = choose.kept(layers, [several], plan)
    assert kept.depths is not None
    assert float(kept.depths.cost(network(inputs).double().log_softmax(1)).mean()) == pytest.approx(
        plan["cost"]["exact"] - 1, abs=0.01
    )
    for other in (
        alone,
        replace(several, weights=torch.cat([several.weights, several.weights])),
        replace(several, weights=torch.ones_like(several.weights)),
    ):
        assert choose.kept(layers, [other], plan)[0].depths is None
    for engine, tolerance in (("sketch", 2e-3), ("reference", 2e-3), ("exact", 0.0)):
        assert "depths" not in choose.resolve(network, engine, layers, item.weights[0], [several], inputs, tolerance, 8)
