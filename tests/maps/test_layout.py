"""Where images lie on a map: neighbours together, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness

from regrad.maps import layout

pytest.importorskip("openTSNE", reason="openTSNE is not installed (pip install '.[dev]')")


def test_neighbours_stay_together_and_the_map_is_the_same_each_time() -> None:
    images = load_digits().data[:150]
    vectors = (images * np.linspace(1, 3, 150)[:, None]).astype(np.float16)  # lengths do not matter
    places = layout.lay_out(vectors)
    assert np.array_equal(places, layout.lay_out(vectors))
    assert trustworthiness(images, places, n_neighbors=10, metric="cosine") > 0.95
    assert trustworthiness(images, vectors[:, 20:22], n_neighbors=10, metric="cosine") < 0.8  # any two pixels


@pytest.mark.parametrize("vectors", [np.ones((layout.FEWEST, 5)), np.zeros((20, 3)), np.arange(20)[:, None]])
def test_few_images_and_copies_of_one_have_a_place(vectors: np.ndarray) -> None:
    places = layout.lay_out(vectors.astype(np.float16))
    assert places.shape == (len(vectors), 2)
    assert np.isfinite(places).all()
