"""Training on a few images, and weights that come back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from regrad import Classifier
from regrad.benchmarks.gpu import networks, train
from regrad.benchmarks.gpu.bench import Bench
from regrad.benchmarks.gpu.pack import write_pictures
from tests.shards import png, write_parquet


def test_a_network_learns_what_it_is_shown(tmp_path: Path) -> None:
    """Dark and bright images; as many epochs as the time allows."""
    random = np.random.default_rng(0)
    rows = [(f"{row}", png(random.integers(0, 128, (16, 16, 3)) + 127 * (row % 2)), row % 2) for row in range(96)]
    write_pictures(*[write_parquet(tmp_path / f"{name}.parquet", rows) for name in "ab"], str(tmp_path / "pack"))
    bench = Bench("cpu", True, str(tmp_path), str(tmp_path / "pack"), seconds=4)
    first, *epochs, last = train.train(bench)
    assert first["images"] == 96
    assert [piece["epoch"] for piece in epochs] == [*range(1, epochs[0]["of"] + 1)]
    assert (last["accuracy"], last["test_images"]) == (1.0, 96)
    found = Classifier.load(f"{networks.__name__}:tiny_resnet", weights=str(tmp_path / last["weights"]))
    x = torch.stack([torch.full((3, 16, 16), value) for value in (0.25, 0.75)])
    assert found.network.eval()(found.normalize(x)).argmax(1).tolist() == [0, 1]


def test_without_images_it_says_so(tmp_path: Path) -> None:
    assert list(train.train(Bench("cpu", True, str(tmp_path)))) == [
        {"skipped": "no --images: the other parts have random weights"}
    ]


def test_weights_are_cut_into_files_that_load(tmp_path: Path) -> None:
    network, _ = networks.tiny_resnet()
    index = tmp_path / train.save(network, tmp_path, shard_bytes=4000)
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert set(json.loads(index.read_text())["weight_map"].values()) == set(files)
    assert all(sum(value.nbytes for value in load_file(tmp_path / name).values()) <= 10_000 for name in files)
    loaded = Classifier.load(f"{networks.__name__}:tiny_resnet", weights=str(index)).network
    for name, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name].to(value), value, rtol=1e-3, atol=1e-3)
