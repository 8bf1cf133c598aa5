"""What a checkpoint needs of a library's network, found by trying, on small networks of torchvision's kinds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from regrad.errors import UsageError
from regrad.models import architecture
from regrad.models.checkpoints import Stored


def build(num_classes: int | None = None, channels: int = 3, image_size: int | None = None) -> nn.Module:
    """A transformer of 4x4 patches; 1000 classes and 32 pixels unless told."""
    network = VisionTransformer(image_size or 32, 4, 1, 2, 8, 16, num_classes=num_classes or 1000)
    return architecture.restemmed(network, channels)


def stored(network: nn.Module, **others: Any) -> Stored:
    values = {f"model.{name}": value for name, value in network.state_dict().items()} | others
    return Stored("weights w", values, dict.fromkeys(values, "model"))


@pytest.mark.parametrize("classes", [1, 2, 3, 7])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("side", [16, 32, 48])
def test_classes_channels_and_size_are_those_of_the_file(classes: int, channels: int, side: int) -> None:
    trained = build(classes, channels, side)
    nn.init.normal_(trained.encoder.pos_embedding)  # type: ignore[union-attr, arg-type]
    options, notes = architecture.needs(build, stored(trained), "spec", None, 32)
    assert not notes
    assert options == {"num_classes": classes, "channels": channels} | ({"image_size": side} if side != 32 else {})
    network, notes = architecture.filled(build, options, stored(trained), "spec")
    assert not notes
    x = torch.rand(2, channels, side, side)
    torch.testing.assert_close(network.eval()(x), trained.eval()(x))


def test_a_size_that_is_asked_for_resizes_positions_as_torchvision_does() -> None:
    trained = build(7, 3, 16)
    nn.init.normal_(trained.encoder.pos_embedding)  # type: ignore[union-attr, arg-type]
    options, notes = architecture.needs(build, stored(trained), "spec", 24, 32)
    assert options["image_size"] == 24
    assert notes == ["spec: the position embeddings of 16 pixels in the file are resized to 24"]
    network, _ = architecture.filled(build, options, stored(trained), "spec")
    wanted = interpolate_embeddings(24, 4, dict(trained.state_dict()))  # type: ignore[arg-type]
    torch.testing.assert_close(network.state_dict()["encoder.pos_embedding"], wanted["encoder.pos_embedding"])


def test_a_part_of_the_file_may_come_from_published_weights() -> None:
    published, head = build(), build(7)
    file = Stored("weights w", {"heads.head.weight": head.heads.head.weight, "heads.head.bias": torch.ones(7)}, {})
    file.folders = dict.fromkeys(file.values, "")
    options, _ = architecture.needs(build, file, "spec", None, 32)
    network, notes = architecture.filled(build, options, file, "spec", published.state_dict, "V1")
    assert notes == ["spec: weights w has heads.head.weight, heads.head.bias; V1's are the other 18"]
    torch.testing.assert_close(network.state_dict()["conv_proj.weight"], published.state_dict()["conv_proj.weight"])
    assert network.state_dict()["heads.head.bias"].tolist() == [1] * 7
    with pytest.raises(UsageError, match=r"missing class_token, conv_proj.weight, conv_proj.bias and 15 more"):
        architecture.filled(build, options, file, "spec")
    wrong = Stored("weights w", {"heads.head.weight": torch.zeros(7, 8), "neck.weight": torch.ones(1)}, {})
    wrong.folders = dict.fromkeys(wrong.values, "")
    with pytest.raises(UsageError, match=r"unexpected neck.weight"):
        architecture.filled(build, options, wrong, "spec", published.state_dict, "V1")


def test_a_network_that_looks_at_values_is_tried_too() -> None:
    def looking(num_classes: int | None = None, channels: int = 3, image_size: int | None = None) -> nn.Module:
        assert float(torch.linspace(0, 1, 3).sum()) == 1.5  # which the meta device has none of
        return nn.Sequential(nn.Conv2d(channels, 2, 3), nn.Flatten(), nn.Linear(2, num_classes or 5))

    assert architecture.needs(looking, stored(looking(9, 1)), "spec", None, 8)[0] == {"num_classes": 9, "channels": 1}


def test_a_stem_keeps_everything_but_its_channels() -> None:
    network = torchvision.models.squeezenet1_1()
    before = network.features[0]
    stem = architecture.restemmed(network, 4).features[0]  # type: ignore[index, union-attr]
    assert (stem.in_channels, stem.out_channels, stem.stride) == (4, before.out_channels, before.stride)
    assert repr(stem) == repr(before).replace("Conv2d(3,", "Conv2d(4,")
