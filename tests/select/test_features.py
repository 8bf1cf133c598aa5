"""What the network sees in some images of a run, computed as a worker does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from regrad import Classifier, table
from regrad.errors import RegradError, UsageError
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from regrad.reading import decode
from regrad.select import features
from tests.shards import digits, write_parquet

ROWS = [*digits(30), ("bad", b"no image", 1)]


@pytest.fixture
def run(tmp_path: Path) -> tuple[str, dict[str, Any]]:
    source = write_parquet(tmp_path / "in.parquet", ROWS)
    asked = [source, "--model", "tests.shards:build", "--scores", "entropy", "--max-quarantined", "1"]
    execute(prepare(parse([*asked, "--output", str(tmp_path / "run")], "score", None)), score_here)
    features.load_classifier.cache_clear()
    return source, table.read_run(str(tmp_path / "run"))


def test_places_come_back_with_what_was_read_there(run: tuple[str, dict[str, Any]]) -> None:
    source, info = run
    (item,) = features.tasks(info, {source: [(7, ROWS[7][0], 0), (30, "bad", 1), (2, ROWS[2][0], 2), (99, "x", 3)]})
    answer = features.compute(json.loads(json.dumps(item)))  # as it travels
    assert answer["lost"] == 2  # one that is no image, and one that is not there
    assert sorted(place for place, _ in answer["features"]) == [0, 2]
    classifier = features.load_classifier(json.dumps(info["config"]), info["model"]["fingerprint"])
    images = torch.stack([decode.to_tensor(ROWS[row][1], classifier) for row in (7, 2)])
    head = next(module for module in reversed(list(classifier.network.modules())) if isinstance(module, nn.Linear))
    inputs: list[Any] = []
    head.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    classifier.network(classifier.normalize(images))
    held = dict(answer["features"])
    torch.testing.assert_close(torch.tensor([held[0], held[2]]), inputs[0].flatten(1))


def test_many_rows_of_a_source_are_several_tasks(
    run: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, info = run
    monkeypatch.setattr(features, "_ROWS", 4)
    items = features.tasks(
        info, {source: [(row, str(row), 30 - row) for row in range(9, -1, -1)], "zzz": [(0, "", 99)]}
    )
    assert [(item["source"], [row for row, *_ in item["rows"]]) for item in items] == [
        (source, [0, 1, 2, 3]),
        (source, [4, 5, 6, 7]),
        (source, [8, 9]),
        ("zzz", [0]),
    ]


def test_another_model_than_the_runs_is_refused(run: tuple[str, dict[str, Any]]) -> None:
    _, info = run
    with pytest.raises(UsageError, match="is not the model of the run any more"):
        features.load_classifier(json.dumps(info["config"] | {"temperature": 2.0}), info["model"]["fingerprint"])


def test_a_network_that_ends_in_no_linear_layer_gives_its_logits() -> None:
    network = nn.Sequential(nn.Conv2d(1, 5, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = Classifier(network, image_size=8, channels=1)
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        expected = network(classifier.normalize(images))
    torch.testing.assert_close(features.features(classifier, images), expected)


def test_nothing_is_left_on_the_network() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Dropout(0.5), nn.Linear(7, 3)).train()
    classifier = Classifier(network, image_size=8, channels=1)
    told = features.features(classifier, torch.rand(2, 1, 8, 8))
    assert told.shape == (2, 7)
    assert network.training
    assert not any(module._forward_pre_hooks for module in network.modules())
    network[4].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RegradError("broken")))
    with pytest.raises(RegradError, match="broken"):
        features.features(classifier, torch.rand(2, 1, 8, 8))
    assert len(network[4]._forward_pre_hooks) == 1  # the test's own
