"""Perturbed predictions: the same draws whatever the batch, and where dropout goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from regrad import UsageError
from regrad.scores.draws import predictions
from regrad.scores.draws.predictions import AdversarialDraws, DrawSettings, DropoutDraws, ParameterDraws
from tests.networks import SIZE, build, copies

STEPS = torch.full((3, 1, 1), 0.02)
SOURCES = [ParameterDraws, DropoutDraws, AdversarialDraws]


def make(kind: Any, name: str, **settings: Any) -> Any:
    return kind(build(name), DrawSettings(draws=3, **settings), STEPS, copies()[:, 0])


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("name", ["ResNet", "torchvision ViT"])
def test_draws_do_not_depend_on_the_batch(kind: Any, name: str) -> None:
    source = make(kind, name)
    x, ids = copies(5)[:, 0], ["a", "b", "c", "d", "e"]
    together = source(x, ids)
    assert together.shape == (5, 3, 5)
    order = [4, 0, 2, 1, 3]
    parts = [source(x[part], [ids[i] for i in part]) for part in (order[:2], order[2:])]
    torch.testing.assert_close(torch.cat(parts), together[order], rtol=1e-10, atol=1e-12)
    assert float((together[:, 0] - together[:, 1]).abs().max()) > 1e-6


@pytest.mark.parametrize("kind", SOURCES[:2])
def test_a_seed_fixes_the_draws(kind: Any) -> None:
    x, ids = copies(2)[:, 0], ["a", "b"]
    one, same, other = (make(kind, "ResNet", seed=seed)(x, ids) for seed in (0, 0, 1))
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert float((one - other).abs().max()) > 1e-6


def test_parameter_draws_are_the_same_for_every_image_and_need_not_be_kept() -> None:
    x = copies(1)[:, 0].repeat(2, 1, 1, 1)
    kept = make(ParameterDraws, "ResNet")(x, ["a", "b"])
    torch.testing.assert_close(kept[0], kept[1], rtol=1e-12, atol=0)
    source = make(ParameterDraws, "ResNet", memory=1)
    assert source._kept is None
    torch.testing.assert_close(source(x, ["a", "b"]), kept, rtol=0, atol=0)


def test_images_get_masks_of_their_own() -> None:
    x = copies(1)[:, 0].repeat(2, 1, 1, 1)
    found = make(DropoutDraws, "ResNet")(x, ["a", "b"])
    assert float((found[0] - found[1]).abs().max()) > 1e-3


def test_dropout_goes_before_all_layers_but_the_first_or_before_the_last() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 6), nn.Linear(6, 5)).double()
    for place, names in (("all", {"2", "3"}), ("last", {"3"})):
        source = DropoutDraws(network, DrawSettings(dropout_at=place), STEPS, copies()[:, 0])
        assert set(source._places) == names


def test_a_mask_drops_the_share_asked_for_and_keeps_the_mean() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4000), nn.Linear(4000, 5)).double()
    seen = []
    source = DropoutDraws(network, DrawSettings(draws=1, dropout_rate=0.25), STEPS, copies()[:, 0])
    source._network[2].register_forward_hook(lambda module, args, output: seen.append(args[0]))
    source(copies(2)[:, 0], ["a", "b"])
    before = network[1](network[0](copies(2)[:, 0]))
    mask = seen[0] / before
    assert float((mask == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    torch.testing.assert_close(mask[mask != 0], torch.full_like(mask[mask != 0], 1 / 0.75))


def test_a_network_of_one_layer_has_no_place_for_dropout() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5)).double()
    with pytest.raises(UsageError, match="inserted_dropout: Sequential has one layer only"):
        DropoutDraws(network, DrawSettings(), STEPS, copies()[:, 0])


def test_adversarial_steps_go_forth_and_back_along_the_sign_of_the_gradient() -> None:
    network = build("BatchNorm CNN")
    seen: list[torch.Tensor] = []
    source = AdversarialDraws(network, DrawSettings(draws=3), STEPS, copies()[:, 0])
    source._network.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    x = copies(1)[:, 0]
    source(x, ["a"])
    steps = [(y - x) / 0.02 for y in seen[1:]]
    torch.testing.assert_close(steps[0], -steps[2])
    torch.testing.assert_close(steps[1], torch.zeros_like(x))
    assert set(steps[2].round(decimals=6).unique().tolist()) <= {-1.0, 0.0, 1.0}
    loss = [float(-network(y).log_softmax(1)[0, network(x).argmax()]) for y in (seen[1], seen[3])]
    assert loss[1] > loss[0]


def test_the_network_stays_as_it_was() -> None:
    network = build("ResNet")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for source in predictions.SOURCES:
        predictions.build(source, network, DrawSettings(draws=2), STEPS, copies()[:, 0])(copies(2)[:, 0], ["a", "b"])
    assert not any(module._forward_pre_hooks for module in network.modules())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
