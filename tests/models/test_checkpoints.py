"""Weights files: read by their content, without executing any; what is no weights is called what it is."""

from __future__ import annotations

import argparse
import collections
import functools
import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.models.checkpoints import read_weights
from tests.test_classifier import TINY, bare

MARKER = Path("/tmp/regrad-executed")


def saved(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def tensors() -> bytes:
    return safetensors.torch.save({name: value.contiguous() for name, value in bare().state_dict().items()})


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo("w.pth")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(bare().eval()), buffer)
    return buffer.getvalue()


def exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(bare().eval(), (torch.zeros(2, 3, 8, 8),)), buffer)
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.ones(3))
    return buffer.getvalue()


class Attack:
    """Runs code where it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "is empty"),
    "LFS": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 44\n",
        "is a Git LFS pointer, not the file itself: fetch that with `git lfs pull`",
    ),
    "HTML": (lambda: b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page, as a login"),
    "XML": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML page, as a store"),
    "settings": (lambda: b'{"architectures": ["ViT"]}', "is JSON without a weight_map: settings perhaps"),
    "gzip": (lambda: gzip.compress(tensors()), "is compressed by gzip: unpack it"),
    "zip": (lambda: archive(**{"best/model.pth": saved({})}), "is a zip archive of best/model.pth: unpack it"),
    "tar": (tar, "is a tar archive: unpack it"),
    "NumPy": (array, "is a zip archive of weight.npy"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "is HDF5, as Keras writes it"),
    "TorchScript": (scripted, "is a TorchScript program: take its weights out: torch.save"),
    "export": (exported, "is a program of torch.export: take its weights out: torch.save"),
    "a part of a file of torch.save": (lambda: saved(bare().state_dict())[:-200], "is cut short or damaged"),
    "a part of safetensors": (lambda: tensors()[:-10], r"is cut short: \d+ of \d+ bytes"),
    "text": (
        lambda: b"Not Found\n",
        "neither safetensors nor .* torch.save: it is text, and begins 'Not Found'",
    ),
    "noise": (lambda: bytes(range(7, 250)) * 9, "code: neither safetensors nor a file of torch.save$"),
    "a network": (
        lambda: saved(bare()),
        r"without executing code \(a whole network, GLOBAL torch.nn.*convert it where",
    ),
    "a network of before 2020": (
        lambda: saved(bare(), _use_new_zipfile_serialization=False),
        r"without executing code \(.*GLOBAL torch.nn.*convert it where",
    ),
    "a pickle": (lambda: pickle.dumps({"0.weight": np.ones(3)}), "a pickle that is not torch.save's; convert it"),
    "arrays": (lambda: saved({"0.weight": np.ones(3)}), r"without executing code \(GLOBAL numpy.*convert it"),
    "a list": (lambda: saved([1, 2]), r"not a state dict \(a mapping of names to tensors\)"),
    "an optimiser": (lambda: saved({"optimizer": {"lr": 0.1}}), "not a state dict"),
    "code": (
        lambda: saved({"weight": Attack(MARKER.touch)}),
        "without executing code: it would call GLOBAL builtins.getattr",
    ),
    "a command": (
        lambda: saved({"state_dict": bare().state_dict(), "args": Attack(eval, f"open({str(MARKER)!r}, 'w')")}),
        "without executing code: it would call GLOBAL builtins.eval; if you trust it",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_what_is_no_weights_is_called_what_it_is(case: str, name: str, tmp_path: Path) -> None:
    content, message = OTHERS[case]
    (tmp_path / name).write_bytes(content())
    with pytest.raises(UsageError, match=message) as caught:
        read_weights(str(tmp_path / name))
    assert str(caught.value).startswith(f"weights {tmp_path / name}: ")
    assert "\n" not in str(caught.value)
    assert not MARKER.exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.ckpt", "pytorch_model.bin", "weights"])
@pytest.mark.parametrize("legacy", [False, True])
def test_the_content_tells_the_format_and_not_the_name(name: str, legacy: bool, tmp_path: Path) -> None:
    contents = [tensors(), saved(bare().state_dict(), _use_new_zipfile_serialization=not legacy)]
    for content in contents:
        (tmp_path / name).write_bytes(content)
        classifier = Classifier.load(TINY, weights=str(tmp_path / name))
        torch.testing.assert_close(classifier.network.state_dict()["4.weight"], bare().state_dict()["4.weight"])


def test_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder; name the file in it"):
        read_weights(str(tmp_path))


class Own:
    """An object of somebody's own class."""

    def __init__(self) -> None:
        self.values = [1, 2]


class OwnDict(dict):  # type: ignore[type-arg]
    """As Lightning's AttributeDict."""


class OwnList(list):  # type: ignore[type-arg]
    """As a list of a configuration."""


@pytest.mark.parametrize("legacy", [False, True])
def test_what_lies_beside_tensors_is_not_executed_and_does_not_hinder(legacy: bool, tmp_path: Path) -> None:
    beside = {
        "args": argparse.Namespace(lr=0.1, folder=Path("/data")),
        "best": np.float64(95.2),
        "history": np.arange(3),
        "counts": collections.defaultdict(list, {1: [2]}),
        "optimizer": functools.partial(torch.optim.Adam, lr=0.1),
        "own": [Own(), OwnDict(a=Own()), OwnList([1, Own()])],
    }
    content = saved({"state_dict": bare().state_dict(), **beside}, _use_new_zipfile_serialization=not legacy)
    (tmp_path / "w.ckpt").write_bytes(content)
    stored = read_weights(str(tmp_path / "w.ckpt"))
    assert set(stored.tensors) == {f"state_dict.{name}" for name in bare().state_dict()}
    assert f"{__name__}.Own" in stored.husks
    assert stored.metadata["state_dict.1"] == {"version": 2}


def test_the_shards_of_an_index_are_put_together(tmp_path: Path) -> None:
    state = {name: torch.rand_like(value.float()) for name, value in bare().state_dict().items()}
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[:4], "model-00002-of-00002.bin": names[4:]}
    safetensors.torch.save_file(
        {name: state[name] for name in names[:4]}, tmp_path / "model-00001-of-00002.safetensors"
    )
    torch.save({name: state[name] for name in names[4:]}, tmp_path / "model-00002-of-00002.bin")
    index = {"metadata": {"total_size": 1}, "weight_map": {name: part for part, held in parts.items() for name in held}}
    file = tmp_path / "model.safetensors.index.json"
    file.write_text(json.dumps(index))
    classifier = Classifier.load(TINY, weights=str(file))
    torch.testing.assert_close(classifier.network.state_dict()["4.weight"], state["4.weight"])
    torch.testing.assert_close(classifier.network.state_dict()["0.weight"], state["0.weight"])

    file.write_text(json.dumps({"weight_map": index["weight_map"] | {"5.weight": next(iter(parts))}}))
    with pytest.raises(UsageError, match=r"its shards have no 5.weight, which it says they have"):
        read_weights(str(file))
    (tmp_path / "model-00002-of-00002.bin").unlink()
    with pytest.raises(UsageError, match=r"weights .*model-00002-of-00002.bin: no such file"):
        read_weights(str(file))
    file.write_text(json.dumps({"weight_map": {"0.weight": "../w.safetensors"}}))
    with pytest.raises(UsageError, match=r"its shard '../w.safetensors' is not beside it"):
        read_weights(str(file))


def test_parameters_are_tensors(tmp_path: Path) -> None:
    torch.save({"model": {"weight": nn.Parameter(torch.ones(2))}}, tmp_path / "w.pt")
    assert read_weights(str(tmp_path / "w.pt")).tensors["model.weight"].tolist() == [1, 1]
