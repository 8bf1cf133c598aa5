"""Checkpoints under the names and in the containers that trainers write them with, and what does not fit."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from regrad.classifier import Classifier
from regrad.errors import UsageError
from tests.test_classifier import TINY, bare

State = dict[str, Any]


def state(seed: int = 3) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(seed)
        for name, value in bare().state_dict().items()
    }


def under(prefix: str, seed: int = 3) -> State:
    return {prefix + name: value for name, value in state(seed).items()}


class Wrapped(nn.Module):
    """The network as a part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.net = bare()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def wrapped() -> tuple[nn.Module, State]:
    return Wrapped(), {"image_size": 8, "mean": 0.5, "std": 0.5}


def parallel() -> tuple[nn.Module, State]:
    return nn.DataParallel(bare()), {"image_size": 8, "mean": 0.5, "std": 0.5}


def compiled() -> tuple[nn.Module, State]:
    return torch.compile(bare(), backend="eager"), {"image_size": 8, "mean": 0.5, "std": 0.5}  # type: ignore[return-value]


def load(content: Any, tmp_path: Path, spec: str = TINY) -> Classifier:
    torch.save(content, tmp_path / "w.ckpt")
    return Classifier.load(spec, weights=str(tmp_path / "w.ckpt"))


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    network = bare()
    network.load_state_dict(state())
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    network.load_state_dict(state())
    return network, optimizer


CONTAINERS: dict[str, Callable[[], Any]] = {
    "plain": state,
    "state_dict": lambda: {"state_dict": state()},
    "model": lambda: {"model": state(), "epoch": 3},
    "model_state_dict": lambda: {"epoch": 5, "model_state_dict": state(), "optimizer_state_dict": {}, "loss": 0.4},
    "net": lambda: {"net": state(), "acc": 95.2, "epoch": 1},
    "ema": lambda: {"ema": {"module": state(), "decay": 0.99}},
    "model_ema of one's own words": lambda: {"averaged": under("module."), "epoch": torch.tensor(3)},
    "module.": lambda: under("module."),
    "_orig_mod.": lambda: under("_orig_mod."),
    "module._orig_mod.": lambda: under("module._orig_mod."),
    "a compiled part": lambda: {name.replace("4.", "4._orig_mod."): value for name, value in state().items()},
    "Lightning, self.model": lambda: {
        "state_dict": {**under("model."), "criterion.weight": torch.ones(2)},
        "hyper_parameters": {"lr": 0.1, "args": argparse.Namespace(folder=Path("/data"))},
        "optimizer_states": [trained()[1].state_dict()],
    },
    "Lightning of a compiled and parallel self.net": lambda: {"state_dict": under("net._orig_mod.module.")},
    "nested": lambda: {"checkpoint": {"best": {"state_dict": under("backbone.model.")}}},
    "with its optimiser": lambda: {"model": trained()[0].state_dict(), "optimizer": trained()[1].state_dict()},
    "AveragedModel": lambda: AveragedModel(trained()[0]).state_dict(),
    "one dict a part": lambda: {
        part: {name[2:]: value for name, value in state().items() if name.startswith(f"{part}.")} for part in "014"
    },
    "a profiler's counters": lambda: {**state(), "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)},
    "without counters": lambda: {name: value for name, value in state().items() if "num_batches" not in name},
    "half": lambda: {name: value.half() for name, value in state().items()},
}


@pytest.mark.parametrize("spec", [TINY, f"{__name__}:wrapped", f"{__name__}:parallel", f"{__name__}:compiled"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_same_tensors_load_whatever_they_lie_in(container: str, spec: str, tmp_path: Path) -> None:
    if container == "one dict a part":
        spec = TINY  # these names have no end that could be told
    classifier = load(CONTAINERS[container](), tmp_path, spec)
    own = {
        name.removeprefix("net.").removeprefix("module.").removeprefix("_orig_mod."): value
        for name, value in classifier.network.state_dict().items()
    }
    for name, value in state().items():
        if "num_batches" not in name:
            torch.testing.assert_close(own[name], value, rtol=1e-3 if container == "half" else 0, atol=0)


def test_plain_weights_go_before_averaged_ones_and_the_run_says_so(tmp_path: Path) -> None:
    for content in (
        {"state_dict_ema": state(1), "state_dict": state(2)},
        {"model_ema": {"module": state(1)}, "model": state(2)},
        {"state_dict": {**under("ema_model.module.", 1), **under("model.", 2)}},
        {"teacher": state(1), "student": state(2)},
    ):
        classifier = load(content, tmp_path)
        torch.testing.assert_close(classifier.network.state_dict()["4.weight"], state(2)["4.weight"])
        (note,) = classifier.notes
        assert "has several sets that fit" in note
        assert note.endswith(" is taken")


def test_what_is_left_out_beside_the_network_is_said(tmp_path: Path) -> None:
    content = {"state_dict": {**under("model."), "criterion.weight": torch.ones(2), "metric.total": torch.ones(())}}
    (note,) = load(content, tmp_path).notes
    assert "left out, since it is not the network's: state_dict.criterion.weight, state_dict.metric.total" in note


class Versioned(nn.Module):
    """Reads files of its first version in another way, as torchvision's MNASNet does."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        version = local_metadata.get("version")
        assert version in (1, 2)
        if version == 1:
            state_dict[f"{prefix}scale"] = state_dict[f"{prefix}scale"] * 10
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))[:, :2] * self.scale


def versioned() -> tuple[nn.Module, State]:
    return nn.Sequential(Versioned()), {"image_size": 8, "mean": 0.5, "std": 0.5}


@pytest.mark.parametrize("prefix", ["", "module.", "model.net."])
@pytest.mark.parametrize(("version", "wanted"), [(1, 30.0), (2, 3.0)])
def test_the_metadata_of_modules_come_along(prefix: str, version: int, wanted: float, tmp_path: Path) -> None:
    content = OrderedDict({f"{prefix}0.scale": torch.full((2,), 3.0)})
    content._metadata = {prefix[:-1]: {"version": 1}, f"{prefix}0": {"version": version}}  # type: ignore[attr-defined]
    classifier = load({"state_dict": content}, tmp_path, f"{__name__}:versioned")
    assert classifier.network.state_dict()["0.scale"].tolist() == [wanted, wanted]


def test_without_metadata_a_file_is_of_the_versions_installed(tmp_path: Path) -> None:
    safetensors.torch.save_file({"0.scale": torch.full((2,), 3.0)}, tmp_path / "w.safetensors")
    classifier = Classifier.load(f"{__name__}:versioned", weights=str(tmp_path / "w.safetensors"))
    assert classifier.network.state_dict()["0.scale"].tolist() == [3.0, 3.0]


class Remembering(nn.Module):
    """Keeps something beside its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.told = bare(), {"threshold": 0}

    def get_extra_state(self) -> Any:
        return self.told

    def set_extra_state(self, state: Any) -> None:
        self.told = state

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def remembering() -> tuple[nn.Module, State]:
    return Remembering(), {"image_size": 8, "mean": 0.5, "std": 0.5}


def test_what_modules_keep_beside_tensors_comes_along(tmp_path: Path) -> None:
    network = Remembering()
    network.told = {"threshold": 7}
    classifier = load({"model": network.state_dict()}, tmp_path, f"{__name__}:remembering")
    assert classifier.network.told == {"threshold": 7}
    assert classifier.fingerprint != Classifier.load(f"{__name__}:remembering").fingerprint


def lazy() -> tuple[nn.Module, State]:
    network = bare()
    network[4] = nn.LazyLinear(2)
    return network, {"image_size": 8, "mean": 0.5, "std": 0.5}


def test_lazy_layers_take_their_size_from_the_file(tmp_path: Path) -> None:
    classifier = load({"model": state()}, tmp_path, f"{__name__}:lazy")
    torch.testing.assert_close(classifier.network.state_dict()["4.weight"], state()["4.weight"])


def quantised() -> tuple[nn.Module, State]:
    network = torch.ao.quantization.quantize_dynamic(bare().eval(), {nn.Linear}, torch.qint8)
    return network, {"image_size": 8, "mean": 0.5, "std": 0.5}


def test_quantised_layers_load_what_is_no_tensor(tmp_path: Path) -> None:
    network, _ = quantised()
    network[0].weight.data.fill_(0.25)
    classifier = load({"model": network.state_dict()}, tmp_path, f"{__name__}:quantised")
    assert float(classifier.network[0].weight[0, 0, 0, 0].detach()) == 0.25


HEADS = {
    "another architecture's": (
        lambda: {"conv1.weight": torch.ones(2), "fc.weight": torch.ones(3)},
        r"missing 0.weight, 0.bias, 1.weight and 5 more; unexpected conv1.weight, fc.weight; no name is in both",
    ),
    "another number of classes": (
        lambda: {**state(), "4.weight": torch.zeros(7, 4), "4.bias": torch.zeros(7)},
        r"shape 4.weight \(7, 4\) instead of \(2, 4\), .*; 4 has 7 classes in the file and 2 in the network: build it",
    ),
    "other channels": (
        lambda: {**state(), "0.weight": torch.zeros(4, 1, 3, 3)},
        r"shape 0.weight \(4, 1, 3, 3\) instead of \(4, 3, 3, 3\); 0 takes 1 channels in the file: build it so",
    ),
    "a sequence for a head": (
        lambda: {name.replace("4.", "4.1."): value for name, value in state().items()},
        r"missing 4.weight, 4.bias; unexpected 4.1.bias, 4.1.weight; the file's 4 is a sequence with 4.1.weight",
    ),
    "a part missing, in its own names": (
        lambda: {"model": {name: value for name, value in under("net.").items() if "4." not in name}},
        r"missing 4.weight, 4.bias; a factory that builds the network as it was saved makes it fit",
    ),
    "a part too many, in the file's names": (
        lambda: {"model": {**under("module."), "module.extra.weight": torch.ones(2)}},
        r"unexpected model.module.extra.weight;",
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_what_does_not_fit_is_named_with_what_would_make_it_fit(case: str, tmp_path: Path) -> None:
    content, message = HEADS[case]
    with pytest.raises(UsageError, match=message) as caught:
        load(content(), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_shard_alone_is_told_from_a_file_that_lacks_something(tmp_path: Path) -> None:
    file = tmp_path / "model-00001-of-00003.safetensors"
    safetensors.torch.save_file({"0.weight": state()["0.weight"]}, file)
    with pytest.raises(UsageError, match="it is one of 3 shards: give their index file instead"):
        Classifier.load(TINY, weights=str(file))
