"""What the network sees in some images of a run: the input of its last linear layer, else its logits.

The images are few (those among which a selection is made), scattered over many shards: each shard is one task on Ray,
and a worker loads the network once.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from regrad import storage
from regrad.classifier import Classifier
from regrad.errors import RegradError, UsageError
from regrad.network.head import find_head
from regrad.network.hooks import hooked
from regrad.network.modes import evaluating
from regrad.pipeline.options import OPTIONS
from regrad.reading import decode
from regrad.reading.formats import fetcher
from regrad.reading.images import DEFAULT_MAX_PIXELS
from regrad.reading.inputs import absolute

_BATCH = 64
_ROWS = 512  # of one source, in one task

Wanted = Mapping[str, Sequence[tuple[int, str, int]]]


def tasks(run: Mapping[str, Any], wanted: Wanted) -> list[dict[str, Any]]:
    """What :func:`compute` takes, for ``wanted``: source -> (row, id, place in the answer).

    Args:
        run: ``run.json``.
    """
    items = []
    for source, rows in sorted(wanted.items()):
        rows = sorted(rows)
        for start in range(0, len(rows), _ROWS):
            items.append({"run": dict(run), "source": source, "rows": rows[start : start + _ROWS]})
    return items


def compute(item: Mapping[str, Any]) -> dict[str, Any]:
    """``features``: (place, numbers) of the images of one source that could be read; ``lost``: how many could not.

    Raises:
        UsageError: the model is not the one of the run.
        RegradError: the storage refused or failed.
    """
    run = item["run"]
    classifier = load_classifier(json.dumps(run["config"]), run["model"]["fingerprint"])
    places = {row: place for row, _, place in item["rows"]}
    most = run["config"].get("max_pixels") or DEFAULT_MAX_PIXELS
    images: list[Tensor] = []
    read: list[int] = []
    for row, encoded in fetcher(run)(item["source"], {row: name for row, name, _ in item["rows"]}):
        try:
            images.append(decode.to_tensor(encoded, classifier, most))
        except decode.BadImage:
            continue
        read.append(places[row])
    batches = [features(classifier, torch.stack(images[at : at + _BATCH])) for at in range(0, len(images), _BATCH)]
    rows = torch.cat(batches).tolist() if batches else []
    return {"features": list(zip(read, rows, strict=True)), "lost": len(places) - len(read)}


@functools.lru_cache(maxsize=1)
def load_classifier(config: str, fingerprint: str) -> Classifier:
    """The classifier of a run, from the settings in its ``run.json``.

    Raises:
        UsageError: it cannot be loaded, or is another one now.
    """
    settings = json.loads(config)
    names = [option.key for option in OPTIONS if option.role == "model" and option.key != "model"]
    given = {name: settings[name] for name in names if settings.get(name) is not None}
    files = {name: absolute(given[name]) for name in ("weights", "temperature") if isinstance(given.get(name), str)}
    classifier = Classifier.load(settings["model"], **given | files)
    if classifier.fingerprint != fingerprint:
        raise UsageError(
            f"{storage.mask(settings['model'])}: is not the model of the run any more (fingerprint "
            f"{classifier.fingerprint[:12]}, scored with {fingerprint[:12]}); the same code and weights are needed here"
        )
    return classifier


def features(classifier: Classifier, images: Tensor) -> Tensor:
    """(B, d) what the last linear layer is given, or the logits where the network does not end in one.

    Args:
        images: [0, 1] images (B, channels, H, W).
    """
    inputs = classifier.normalize(images)
    network = classifier.network
    seen: list[Tensor] = []
    with evaluating(network), torch.no_grad():
        name = find_head(network, inputs[:1])
        if name is None:
            logits: Tensor = network(inputs)
            return logits.flatten(1)
        with hooked({name: network.get_submodule(name)}, enter=lambda _, call: seen.append(call.input)):
            network(inputs)
    if len(seen) != 1:
        raise RegradError("the network's last layer was not called once; please report this as a bug")
    return seen[0].flatten(1)
