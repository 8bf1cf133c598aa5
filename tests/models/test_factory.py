"""What factories return: networks with dicts, with processors, and with configurations of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.models import factory


def net(classes: int = 2, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))


class Configured(nn.Module):
    """As transformers' image classifiers: a configuration, and logits in an object."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.inner = net(2, config.get("num_channels", 3))
        self.config = SimpleNamespace(**{"id2label": {0: "cat", 1: "dog"}, "problem_type": None} | config)

    def forward(self, pixel_values: Tensor | None = None, labels: Tensor | None = None) -> Any:
        return SimpleNamespace(logits=self.inner(pixel_values))


BUILT: dict[str, Any] = {}


def __getattr__(name: str) -> Any:
    """A factory for everything in BUILT, by its name."""
    if name not in BUILT:
        raise AttributeError(name)
    return lambda: BUILT[name]


def load(built: Any, **flags: Any) -> Classifier:
    BUILT["made"] = built
    return Classifier.load(f"{__name__}:made", **flags)


def test_numbers_of_every_library_and_classes_in_every_form() -> None:
    known = {
        "image_size": np.int64(8),
        "mean": np.array([0.3, 0.4, 0.5]),
        "std": torch.tensor(0.25),
        "class_names": {"0": "cat", "1": "dog"},
        "interpolation": "bicubic",
        "resize_size": np.int64(10),
    }
    classifier = load((net(), known))
    settled = classifier.preprocessing
    assert (settled.image_size, settled.resize_size, settled.interpolation) == (
        (8, 8),
        10,
        "bicubic",
    )
    assert (classifier.mean, classifier.std) == ((0.3, 0.4, 0.5), (0.25, 0.25, 0.25))
    assert classifier.class_names == ("cat", "dog")
    assert load((net(2, 1), {"image_size": (1, 8, 8)})).channels == 1
    assert load([net(), {"image_size": {"height": 8, "width": 8}, "id2label": {0: "cat", 1: "dog"}}]).class_names


@pytest.mark.parametrize(
    ("built", "message"),
    [
        (
            (net(), {"image_size": 8, "img_mean": 0.5}),
            r"not know: img_mean \(is it mean\?\); the keys are image_size",
        ),
        ((net(), {"size": 8, "crop": 7}), r"does not know: size, crop \(is it"),
        ((net(), ["cat", "dog"]), "returned a list beside the network: a dict of image_size, "),
        ((net(), {"image_size": "8x8"}), "image size '8x8': not a number"),
        ((net(), {"image_size": 8, "class_names": ["cat"]}), "1 class names for a network with 2 classes"),
        ((net(), {"image_size": 8, "interpolation": "area"}), "interpolation 'area': one of nearest,"),
        ((net(), {"image_size": 8, "crop_mode": "border"}), "crop mode 'border': one of center, squash"),
        ({"model": net()}, "returned dict, not a torch.nn.Module"),
        ((), r"returned tuple, not a torch.nn.Module"),
        (net(), "the image size is unknown; give --image-size"),
    ],
)
def test_what_is_not_understood_is_one_line(built: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load(built)
    assert "\n" not in str(caught.value)


def test_a_run_says_that_pixels_are_not_normalised() -> None:
    (note,) = load((net(), {"image_size": 8})).notes
    assert note.endswith("neither mean nor std is given: the network receives pixels from 0 to 1 as they are")
    assert not load((net(), {"image_size": 8, "mean": 0.0, "std": 1.0})).notes
    assert not load((net(), {"image_size": 8}), mean=0.5).notes


def test_a_configuration_names_the_classes_and_the_size() -> None:
    classifier = load(Configured(image_size=8, num_channels=1))
    assert (classifier.image_size, classifier.channels, classifier.class_names) == ((8, 8), 1, ("cat", "dog"))
    said = load((Configured(image_size=99), {"image_size": 8, "class_names": ["a", "b"]}))
    assert (said.image_size, said.class_names) == ((8, 8), ("a", "b"))
    assert load(Configured(image_size=8, id2label={0: "LABEL_0", 1: "LABEL_1"})).class_names is None


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_a_configuration_for_another_task_is_refused_unless_said(kind: str) -> None:
    network = Configured(image_size=8, problem_type=kind)
    with pytest.raises(UsageError, match=r"its configuration says that it is of .*: regrad scores networks"):
        load(network)
    assert load(network, outputs="logits").num_classes == 2
    assert load(Configured(image_size=8, problem_type="single_label_classification")).num_classes == 2


def test_timms_configuration_is_taken_where_the_factory_says_nothing() -> None:
    network = timm.create_model("convnext_atto", num_classes=5)
    config = timm.data.resolve_model_data_config(network)
    classifier = load(network)
    settled = classifier.preprocessing
    assert (settled.image_size, settled.interpolation) == (
        config["input_size"][1:],
        config["interpolation"],
    )
    assert classifier.mean == config["mean"]
    assert "is that of the network's pretrained_cfg" in classifier.notes[0]
    assert load((network, config)).fingerprint == classifier.fingerprint
    said = load((network, {"image_size": 32, "mean": 0.5, "std": 0.5}))
    settled = said.preprocessing
    assert (settled.image_size, settled.resize_size, settled.interpolation) == (
        (32, 32),
        None,
        "bilinear",
    )


def test_a_part_of_timms_configuration_says_as_much() -> None:
    some = load((net(), {"input_size": (3, 8, 8)}))
    assert (some.image_size, some.channels, some.mean) == ((8, 8), 3, (0.0, 0.0, 0.0))
    more = load((net(), {"input_size": (3, 8, 8), "crop_pct": 0.8, "mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}))
    assert (more.mean, more.std) == ((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))
    edged = np.zeros((10, 10, 3), np.uint8)
    edged[1:9, 1:9] = 255
    assert float(more.preprocess(Image.fromarray(edged)).min()) == 1  # resized to 10, and the edge cropped off
    assert float(some.preprocess(Image.fromarray(edged)).min()) < 1


def test_keys_are_the_classifiers_arguments() -> None:
    import inspect

    taken = set(inspect.signature(Classifier.__init__).parameters) - {"self", "network", "spec", "transform"}
    assert set(factory.KEYS) == taken
