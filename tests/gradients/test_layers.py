"""The order of layers, their weights, and what cannot be scored."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from regrad.errors import UsageError
from regrad.gradients.layers import find_layers, layer_weights
from regrad.network.copies import private_copy
from tests.networks import build, copies


def _names(name: str, grouping: str = "modules") -> list[tuple[int, str]]:
    layers = find_layers(private_copy(build(name)), copies()[:, 0], grouping)
    return [(layer.index, layer.name) for layer in layers]


def test_layers_come_in_the_order_they_are_entered() -> None:
    assert _names("BatchNorm CNN") == [(1, "conv1"), (2, "bn1"), (3, "conv2"), (4, "bn2"), (5, "fc")]


def test_the_networks_own_class_token_comes_first() -> None:
    assert _names("timm ViT")[:2] == [(1, ""), (2, "patch_embed.proj")]


def test_a_module_never_called_stands_behind_its_nearest_called_ancestor() -> None:
    names = [name for _, name in _names("torchvision ViT")]
    place = names.index("encoder.layers.encoder_layer_0.self_attention")
    assert names[place + 1] == "encoder.layers.encoder_layer_0.self_attention.out_proj"


def test_a_shared_parameter_belongs_to_the_module_entered_first() -> None:
    layers = {layer.name: layer for layer in find_layers(private_copy(build("layer used twice")), copies()[:, 0])}
    assert layers["a"].parameters == ("weight", "bias")
    assert layers["b"].parameters == ("bias",)
    assert layers["conv"].calls == 2


def test_an_auxiliary_head_that_is_not_run_counts_no_parameters() -> None:
    layers = {layer.name: layer for layer in find_layers(private_copy(build("unknown layer")), copies()[:, 0])}
    assert layers["auxiliary"].parameters == ()
    assert layers["wave"].parameters == ("amplitude", "frequency")


def test_stages_count_top_level_children() -> None:
    indices = {name.split(".")[0]: index for index, name in _names("ResNet", "stages")}
    assert indices == {"conv1": 1, "bn1": 2, "layer1": 3, "layer2": 4, "layer3": 5, "layer4": 6, "fc": 7}


def test_unknown_grouping_is_refused() -> None:
    with pytest.raises(UsageError, match="layers 'blocks': one of modules, stages"):
        _names("BatchNorm CNN", "blocks")


def test_weights_are_one_at_the_last_layer_and_fall_upstream() -> None:
    layers = find_layers(private_copy(build("BatchNorm CNN")), copies()[:, 0])
    wanted = [math.exp(0.3 * (index - 5)) for index in range(1, 6)]
    torch.testing.assert_close(layer_weights(layers, 0.3), torch.tensor(wanted, dtype=torch.float64))
    assert layer_weights(layers, 0.0).tolist() == [1.0] * 5
    assert layer_weights(layers, math.inf).tolist() == [0.0] * 4 + [1.0]


@pytest.mark.parametrize("decay", [-0.1, math.nan])
def test_a_negative_depth_decay_is_refused(decay: float) -> None:
    layers = find_layers(private_copy(build("BatchNorm CNN")), copies()[:, 0])
    with pytest.raises(UsageError, match="depth decay"):
        layer_weights(layers, decay)


def test_a_network_that_mixes_images_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    with pytest.raises(UsageError, match=r"depend on the other images.*1 \(BatchNorm2d without running statistics\)"):
        find_layers(private_copy(network.double()), copies()[:, 0])


def test_rows_that_do_not_belong_to_one_image_are_noticed() -> None:
    class PositionMajor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fc = nn.Linear(3, 4), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.flatten(2).permute(2, 0, 1)  # positions first, then images
            return self.fc(torch.tanh(self.inner(rows.flatten(0, 1))).reshape(*rows.shape[:2], 4).mean(0))

    layers = {x.name: x for x in find_layers(private_copy(PositionMajor().double()), copies()[:, 0])}
    assert not layers["inner"].batch_major
    assert layers["fc"].batch_major
