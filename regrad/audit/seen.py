"""Whether the network sees other images than in the baseline: the embeddings of both, all together and by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from regrad.audit import drift
from regrad.formatting import class_name, p_value, percent
from regrad.metrics.two_samples import FOLDS, PERMUTATIONS, Pooled, by_group, fourier_features, two_samples
from regrad.runs.embeddings import EmbeddingSample, keeps_embeddings, sample_embeddings
from regrad.runs.scored import Ints, Run

SAMPLE = 20_000  # images of either run that are compared, at most
_TOGETHER = ("auroc", "auroc_p", "mmd", "mmd_p")
NUMBERS = 2**24  # and at most so many numbers of their embeddings: 20,000 images up to 838 of them


def embedding_drift(known: Run, new: Run, expected: Ints, predicted: Ints) -> dict[str, Any] | None:
    """How far the embeddings of ``new`` are from those of ``known``: the part of ``audit.json``.

    Classes are predicted ones. A class is held against the baseline's images of that class, of a sample, and its share
    against its share there, of all images.

    Args:
        expected, predicted: (classes,) images of each class of ``known`` and ``new``.

    Returns:
        ``sampled``, ``permutations``, the fields of :class:`regrad.metrics.two_samples.TwoSamples`, ``drifted`` and
        ``classes``, those first whose p is smallest. None where a run kept no embeddings, or has fewer than 20 images.

    Raises:
        RegradError: the storage refused or failed.
    """
    if not (keeps_embeddings(known) and keeps_embeddings(new)):
        return None
    size = min(SAMPLE, NUMBERS // known.model["embedding_width"])
    samples = [sample_embeddings(run, size) for run in (known, new)]
    if min(len(sample.vectors) for sample in samples) < max(drift.FEWEST, 2 * FOLDS):
        return None
    return compare_embeddings(samples[0], samples[1], expected, predicted)


def compare_embeddings(
    known: EmbeddingSample,
    new: EmbeddingSample,
    expected: Ints,
    predicted: Ints,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """What :func:`embedding_drift` tells of two samples of at least 20 images each."""
    pooled = Pooled(known.vectors, new.vectors, seed)
    features = fourier_features(pooled)
    together = two_samples(pooled, features, permutations)
    apart = by_group(pooled, features, np.concatenate([known.predictions, new.predictions]), drift.FEWEST, permutations)
    classes = [
        {
            "class": place,
            "images": images,
            "baseline_images": held,
            "share": images / max(int(predicted.sum()), 1),
            "baseline_share": held / max(int(expected.sum()), 1),
            "share_p": drift.same_shares_p(_in_and_out(place, predicted), _in_and_out(place, expected)),
            "mmd": apart[place].mmd if place in apart else None,
            "p_adjusted": apart[place].p_adjusted if place in apart else None,
        }
        for place, (images, held) in enumerate(zip(predicted.tolist(), expected.tolist(), strict=True))
        if images or held
    ]
    for entry, p in zip(classes, drift.adjusted([entry["share_p"] for entry in classes]), strict=True):
        entry["share_p_adjusted"] = p
        entry["drifted"] = min(_ps(entry)) < drift.DRIFTED
    return {
        "sampled": {"baseline": len(known.vectors), "night": len(new.vectors)},
        "permutations": permutations,
        **{name: getattr(together, name) for name in _TOGETHER},
        "drifted": 2 * min(together.auroc_p, together.mmd_p) < drift.DRIFTED,
        "classes": sorted(classes, key=lambda entry: (min(_ps(entry)), -abs(entry["share"] - entry["baseline_share"]))),
    }


def embedding_metrics(numbers: Mapping[str, Any] | None) -> dict[str, Any]:
    """What gates may speak of, from :func:`embedding_drift`; without values where there is none."""
    told = dict(numbers or {})
    classes = sum(entry["drifted"] for entry in told["classes"]) if numbers else None
    return {f"embedding_{name}": told.get(name) for name in _TOGETHER} | {"embedding_classes": classes}


def embedding_drift_in_words(numbers: Mapping[str, Any] | None, names: Sequence[str] | None) -> list[str]:
    """A sentence about all images, and one each about classes of other images and of another share, if there are any;
    none where there are no embeddings."""
    if not numbers:
        return []
    verdict = (
        "The network sees other images than in the baseline"
        if numbers["drifted"]
        else "No drift of what the network sees is found"
    )
    said = [
        f"{verdict}: a classifier tells the embeddings from the baseline's with an AUROC of {numbers['auroc']:.3f} "
        f"({p_value(numbers['auroc_p'])}), their MMD² is {numbers['mmd']:.2g} ({p_value(numbers['mmd_p'])})."
    ]
    for key, what in (("p_adjusted", "images have"), ("share_p_adjusted", "share of the images has")):
        drifted = [entry for entry in numbers["classes"] if entry[key] is not None and entry[key] < drift.DRIFTED]
        if drifted:
            first = min(drifted, key=lambda entry: entry[key])
            said.append(
                f"The {what} changed in {len(drifted)} of {len(numbers['classes'])} predicted classes (corrected for "
                f"all), first of all {class_name(first['class'], names)}: {percent(first['share'])} of all images, "
                f"{percent(first['baseline_share'])} of the baseline's."
            )
    return said


def _in_and_out(place: int, images: Ints) -> Ints:
    """(2,) images of a class, and of all others."""
    return np.array([images[place], images.sum() - images[place]])


def _ps(entry: Mapping[str, Any]) -> list[float]:
    """The corrected p-values of a class: of its share, and of its embeddings where there are enough."""
    return [p for p in (entry["share_p_adjusted"], entry["p_adjusted"]) if p is not None]
