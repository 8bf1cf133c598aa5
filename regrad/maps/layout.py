"""Where images lie on a map: t-SNE of their embeddings, the same for the same embeddings."""

from __future__ import annotations

import importlib.util

import numpy as np
import numpy.typing as npt

from regrad.runs.scored import Floats

PERPLEXITY = 30
FEWEST = 20  # images: of fewer there is nothing to see that a list does not show
INSTALL = "pip install 'regrad[map]'"
_SEED = 0
_MOST_NUMBERS = 50  # of an embedding, that neighbours are looked for by


def installed() -> bool:
    """Whether what lays maps out is there: ``regrad[map]``."""
    return importlib.util.find_spec("openTSNE") is not None


def lay_out(vectors: npt.NDArray[np.float16]) -> Floats:
    """(n, 2) places in the plane of n embeddings (n, d): neighbours by the cosine stay together.

    t-SNE with a perplexity of 30, from the first two principal components on, seeded and on one core, so that it is the
    same each time. Only what is close means something: distances between groups, and how large they are, do not.

    Source: openTSNE, Policar et al., JSS 2024; docs/report.md has what else was tried.
    """
    import openTSNE
    from openTSNE.initialization import rescale

    components = _principal(_directions(vectors), min(_MOST_NUMBERS, vectors.shape[1]))
    # Copies of one image must not lie on one point, where forces have no direction.
    noise = np.random.default_rng(_SEED).normal(0, 1e-3, (len(vectors), 2))
    begin = rescale(components[:, :2] / max(components[:, 0].std(), 1e-12) + noise)
    tsne = openTSNE.TSNE(
        perplexity=min(PERPLEXITY, (len(vectors) - 1) / 3), initialization=begin, random_state=_SEED, n_jobs=1
    )
    return np.asarray(tsne.fit(components), np.float64)


def _directions(vectors: npt.NDArray[np.float16]) -> Floats:
    """(n, d) of length 1: Euclidean neighbours are then those by the cosine."""
    full = vectors.astype(np.float64)
    return full / np.maximum(np.linalg.norm(full, axis=1, keepdims=True), 1e-12)


def _principal(vectors: Floats, count: int) -> Floats:
    """(n, at least 2) the first ``count`` principal components, the largest weight of each positive."""
    centred = vectors - vectors.mean(0)
    weights = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
    weights = weights * np.sign(weights[np.abs(weights).argmax(0), np.arange(weights.shape[1])])
    components = centred @ weights
    return np.pad(components, ((0, 0), (0, max(0, 2 - components.shape[1]))))
