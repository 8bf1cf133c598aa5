"""What scores need of training data: fitted on labelled shards once, and kept beside the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import safetensors.torch
import torch

from regrad import storage
from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.pipeline.options import Options
from regrad.reading.inputs import list_sources
from regrad.reading.memory import labelled_batches, load_labelled
from regrad.reading.samples import Columns
from regrad.scores import find_scores
from regrad.scores.draws import posterior
from regrad.scores.state import State
from regrad.scores.statistics import fit_statistics


@dataclass(frozen=True)
class Fit:
    """One thing that is fitted.

    Attributes:
        settings: what it depends on besides classifier, shards and their number.
        fit: makes it.
    """

    settings: Callable[[Options], list[str]]
    fit: Callable[[Options, Classifier, Columns], State]


def _posterior(options: Options, classifier: Classifier, columns: Columns) -> State:
    images, labels = load_labelled(options.fit_data, classifier, options.fit_limit, columns)
    return posterior.fit(classifier.network, classifier.normalize(images), labels, options.fit_structure)


def _features(options: Options, classifier: Classifier, columns: Columns) -> State:
    labelled = labelled_batches(options.fit_data, classifier, options.fit_limit, columns)
    batches = ((classifier.normalize(images), labels) for images, labels in labelled)
    return fit_statistics(classifier.network, batches, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


#: For each of :data:`regrad.settings.scoring.FITTED`, an argument of :class:`regrad.scorer.Scorer`.
FITS = {
    "posterior": Fit(lambda options: [options.fit_structure], _posterior),
    "statistics": Fit(lambda options: [], _features),
}


def fitted(options: Options, classifier: Classifier, output: str) -> dict[str, State]:
    """What the scores need of ``--fit-data``, by the names of :data:`FITS`.

    Each is kept as ``OUT/<name>-<key>.safetensors``, the key a hash of the classifier, the shards' identities and the
    settings, so that it is fitted once; a dry run writes nothing.

    Raises:
        UsageError: there are no training data, or they have no usable labels.
        RegradError: a shard cannot be read.
    """
    scores = find_scores(options.scores)
    needing = {name: [score.name for score in scores if score.fitted == name] for name in FITS}
    return {name: _one(name, options, classifier, output, of) for name, of in needing.items() if of}


def _one(name: str, options: Options, classifier: Classifier, output: str, scores: list[str]) -> State:
    if not options.fit_data:
        raise UsageError(f"--scores {','.join(scores)}: needs --fit-data, shards of labelled training images")
    columns = Columns(options.image_column, options.label_column, options.id_column)
    shards = [(source.uri, source.identity_of(0, None)) for source in list_sources(options.fit_data, columns)]
    settings = [classifier.fingerprint, shards, *FITS[name].settings(options), options.fit_limit]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    file = f"{name}-{key}.safetensors"
    if file in storage.list_files(output, ".safetensors"):
        return safetensors.torch.load(storage.read_bytes(storage.join(output, file)))
    state = FITS[name].fit(options, classifier, columns)
    if not options.dry_run:
        storage.write_atomically(storage.join(output, file), safetensors.torch.save(state))
    return state
