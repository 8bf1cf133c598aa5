"""torchvision's and timm's networks by name: with checkpoints of one's own, and with published weights."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.models import offline

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def randomised(network: nn.Module) -> nn.Module:
    """``network`` with every tensor drawn, heads that begin with zeros too, so that activations stay small."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator)
                flat = 0.9 + 0.1 * torch.rand(value.shape, generator=generator)
                value.copy_(drawn / max(1, value[0].numel()) ** 0.5 if value.dim() > 1 else flat)
    return network.eval()


def shuffled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without order, as safetensors gives it."""
    return {name: state[name].contiguous() for name in sorted(state, key=lambda name: hash(("seed", name)))}


def save(network: nn.Module, folder: Path, prefix: str = "") -> str:
    state = shuffled(network.state_dict())
    safetensors.torch.save_file({prefix + name: value.clone() for name, value in state.items()}, folder / "w.bin")
    return str(folder / "w.bin")


def same(a: nn.Module, b: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(a.eval()(x), b.eval()(x), rtol=0, atol=0)


def test_an_image_size_that_is_in_no_file_is_that_of_the_published_weights(tmp_path: Path) -> None:
    weights = save(torchvision.models.inception_v3(num_classes=3, init_weights=False), tmp_path)
    classifier = Classifier.load("torchvision:inception_v3", weights=weights)
    assert classifier.image_size == (299, 299)
    assert "assumed: --image-size 299, --mean" in classifier.notes[-1]


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "resnet18"]
)
def test_torchvisions_take_their_number_of_classes_from_the_head(name: str, tmp_path: Path) -> None:
    trained = randomised(torchvision.models.get_model(name, weights=None, num_classes=7))
    classifier = Classifier.load(f"torchvision:{name}", weights=save(trained, tmp_path, "module."), image_size=64)
    assert classifier.num_classes == 7
    same(classifier.network, trained, X)
    (note,) = classifier.notes
    assert note.endswith("assumed: --mean 0.485,0.456,0.406, --std 0.229,0.224,0.225")


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_timms_take_classes_and_channels_from_the_file(name: str, channels: int, tmp_path: Path) -> None:
    trained = randomised(timm.create_model(name, num_classes=7, in_chans=channels))
    classifier = Classifier.load(f"timm:{name}", weights=save(trained, tmp_path, "model._orig_mod."))
    assert (classifier.num_classes, classifier.channels) == (7, channels)
    same(classifier.network, trained, torch.rand(1, channels, *classifier.image_size))
    *greys, assumed = classifier.notes
    assert bool(greys) == (channels == 1)
    assert "its preprocessing is in no weights; assumed: --image-size 224, --mean 0." in assumed


def test_torchvisions_with_another_stem_take_grey_images(tmp_path: Path) -> None:
    trained = torchvision.models.resnet18(num_classes=7)
    trained.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    randomised(trained)
    classifier = Classifier.load("torchvision:resnet18", weights=save(trained, tmp_path), image_size=64)
    assert (classifier.channels, classifier.mean, classifier.std) == (1, (0.449,), (0.226,))
    assert "takes grey images" in classifier.notes[0]
    same(classifier.network, trained, X[:, :1])


def test_a_network_trained_on_another_size_is_built_for_it(tmp_path: Path) -> None:
    trained = randomised(timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=96))
    classifier = Classifier.load("timm:vit_tiny_patch16_224", weights=save(trained, tmp_path))
    assert classifier.image_size == (96, 96)
    same(classifier.network, trained, torch.rand(1, 3, 96, 96))

    asked = Classifier.load("timm:vit_tiny_patch16_224", weights=save(trained, tmp_path), image_size=64)
    assert asked.image_size == (64, 64)
    assert "the position embeddings of 96 pixels in the file are resized to 64" in asked.notes[0]
    resized = timm.layers.resample_abs_pos_embed(trained.pos_embed, [4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(asked.network.pos_embed, resized)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_auxiliary_heads_may_be_there_or_not(auxiliary: bool, tmp_path: Path) -> None:
    trained = randomised(torchvision.models.googlenet(num_classes=7, aux_logits=auxiliary, init_weights=False))
    classifier = Classifier.load("torchvision:googlenet", weights=save(trained, tmp_path), image_size=96)
    same(classifier.network, trained, torch.rand(2, 3, 96, 96))
    assert "transform_input is in no weights, and taken to be off" in classifier.notes[0]


def test_a_start_from_published_weights_has_their_settings(tmp_path: Path) -> None:
    trained = randomised(
        torchvision.models.googlenet(num_classes=7, aux_logits=False, init_weights=False, transform_input=True)
    )
    weights = save(trained, tmp_path)
    classifier = Classifier.load("torchvision:googlenet@IMAGENET1K_V1", weights=weights)
    same(classifier.network, trained, torch.rand(2, 3, 96, 96))
    assert classifier.class_names is None
    assert (classifier.num_classes, classifier.preprocessing.resize_size) == (7, 256)
    assert not classifier.notes
    assert classifier.spec.endswith("|transform_input")


def test_heads_that_disagree_are_told(tmp_path: Path) -> None:
    state = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7).state_dict()
    state |= {"head_dist.weight": torch.zeros(5, 192), "head_dist.bias": torch.zeros(5)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UsageError, match=r"its parts have different num_classes: head.weight 7, .*head_dist.weight 5"):
        Classifier.load("timm:deit_tiny_distilled_patch16_224", weights=str(tmp_path / "w.pt"))


def test_what_is_of_another_architecture_is_told(tmp_path: Path) -> None:
    for spec, network in (
        ("torchvision:resnet18", torchvision.models.mobilenet_v3_small()),
        ("timm:resnet18", timm.create_model("resnet26")),
    ):
        with pytest.raises(UsageError, match=rf"weights do not fit: weights .* into {spec}: .*one architecture"):
            Classifier.load(spec, weights=save(network, tmp_path))
    head = torchvision.models.resnet18()
    head.fc = nn.Sequential(nn.Dropout(), nn.Linear(512, 7))
    with pytest.raises(UsageError, match=r"the file's fc is a sequence with fc.1.weight: return a network with that"):
        Classifier.load("torchvision:resnet18", weights=save(head, tmp_path))


def test_timms_older_files_are_converted_by_timm(tmp_path: Path) -> None:
    trained = randomised(timm.create_model("vit_tiny_patch16_224", num_classes=7))
    old = dict(trained.state_dict())
    old["patch_embed.proj.weight"] = old["patch_embed.proj.weight"].reshape(192, -1)  # MoCo v3 flattens its stem
    torch.save({"model": old}, tmp_path / "w.pt")
    classifier = Classifier.load("timm:vit_tiny_patch16_224", weights=str(tmp_path / "w.pt"))
    same(classifier.network, trained, torch.rand(1, 3, 224, 224))
    assert "timm's own conversion was applied" in classifier.notes[0]


def test_timms_without_a_head_are_no_classifiers(tmp_path: Path) -> None:
    network = timm.create_model("vit_small_patch14_dinov2", img_size=56)
    with pytest.raises(UsageError, match="gives features"):
        Classifier.load("timm:vit_small_patch14_dinov2", weights=save(network, tmp_path))


# -- published weights, with and without a network ---------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of both hubs, and no way to them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface"))
    monkeypatch.setattr(offline, "unreachable", lambda url: "no way there")
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "torchvision:resnet18@DEFAULT",
            r"cannot fetch the weights: download.pytorch.org cannot be reached \(no way there\): fetch https://.*"
            r"resnet18-f37072fd.pth elsewhere and give --weights FILE, or put it into .*checkpoints \(\$TORCH_HOME\)",
        ),
        (
            "timm:resnet18",
            r"cannot fetch the weights: huggingface.co cannot be reached \(no way there\): give --weights F.*HF_HOME",
        ),
    ],
)
def test_without_a_network_it_is_one_line_at_once(
    spec: str, message: str, hub: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError, match=f"{spec}: {message}") as caught:
        Classifier.load(spec)
    assert time.monotonic() - started < 10
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_file_in_torchs_cache_needs_no_network(hub: Path) -> None:
    published = randomised(torchvision.models.resnet18())
    torch.save(published.state_dict(), hub / "resnet18-f37072fd.pth")
    classifier = Classifier.load("torchvision:resnet18@IMAGENET1K_V1")
    same(classifier.network, published, X)
    assert classifier.class_names is not None
    assert classifier.class_names[0] == "tench"

    head = {"fc.weight": torch.rand(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(head, hub / "head.pt")
    tuned = Classifier.load("torchvision:resnet18@IMAGENET1K_V1", weights=str(hub / "head.pt"))
    published.load_state_dict(head, strict=False)
    same(tuned.network, published, X)
    assert tuned.notes[0].endswith("head.pt has fc.weight, fc.bias; IMAGENET1K_V1's are the other 100")
    with pytest.raises(UsageError, match=r"missing conv1.weight, bn1.weight, bn1.bias and"):
        Classifier.load("torchvision:resnet18", weights=str(hub / "head.pt"))


def test_ones_own_head_over_published_weights(hub: Path) -> None:
    published = randomised(torchvision.models.resnet18())
    torch.save(published.state_dict(), hub / "resnet18-f37072fd.pth")
    torch.save({"model": {"fc.weight": torch.rand(7, 512), "fc.bias": torch.zeros(7)}}, hub / "head.pt")
    classifier = Classifier.load("torchvision:resnet18@IMAGENET1K_V1", weights=str(hub / "head.pt"))
    assert (classifier.num_classes, classifier.class_names) == (7, None)
    torch.testing.assert_close(classifier.network.state_dict()["conv1.weight"], published.state_dict()["conv1.weight"])


def test_published_files_of_older_names_load_by_weights(hub: Path) -> None:
    trained = randomised(torchvision.models.densenet121(num_classes=7))
    old = {re.sub(r"(norm|conv)([12])", r"\1.\2", name): value for name, value in trained.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, hub / "w.pth")
    same(Classifier.load("torchvision:densenet121", weights=str(hub / "w.pth"), image_size=64).network, trained, X)
