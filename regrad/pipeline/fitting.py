"""The posterior that the ``laplace`` score needs: fitted on labelled training shards once, and kept beside the run."""

from __future__ import annotations

import hashlib
import json

import safetensors.torch

from regrad import storage
from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.pipeline.options import Options
from regrad.reading.inputs import list_sources
from regrad.reading.memory import load_labelled
from regrad.reading.samples import Columns
from regrad.scores.draws import posterior


def fitted(options: Options, classifier: Classifier, output: str) -> posterior.State | None:
    """The posterior of ``classifier`` on ``--fit-data``; None where no score needs one.

    Kept as ``OUT/posterior-<key>.safetensors``, the key a hash of the classifier, the shards' identities and the
    settings, so that it is fitted once; a dry run writes nothing.

    Raises:
        UsageError: there are no training data, or they have no usable labels.
        RegradError: a shard cannot be read.
    """
    if "laplace" not in options.scores:
        return None
    if not options.fit_data:
        raise UsageError("--scores laplace: needs --fit-data, shards of labelled training images")
    columns = Columns(options.image_column, options.label_column, options.id_column)
    shards = [(source.uri, source.identity_of(0, None)) for source in list_sources(options.fit_data, columns)]
    settings = [classifier.fingerprint, shards, options.fit_structure, options.fit_limit]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    name = f"posterior-{key}.safetensors"
    if name in storage.list_files(output, ".safetensors"):
        return safetensors.torch.load(storage.read_bytes(storage.join(output, name)))
    images, labels = load_labelled(options.fit_data, classifier, options.fit_limit, columns)
    state = posterior.fit(classifier.network, classifier.normalize(images), labels, options.fit_structure)
    if not options.dry_run:
        storage.write_atomically(storage.join(output, name), safetensors.torch.save(state))
    return state
