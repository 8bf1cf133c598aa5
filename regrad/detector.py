"""One score with the interface of an out-of-distribution detector: ``fit`` and ``predict``, as pytorch-ood has them."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor

from regrad.scorer import Scorer


class Detector:
    """predict(images) = the column of one score; larger = more outlying.

    Args:
        scorer: any scorer.
        score: one of its columns; None takes the first.

    Example: ``Detector(Scorer(classifier, ["regrad"])).predict(images)``.
    """

    def __init__(self, scorer: Scorer, score: str | None = None) -> None:
        self.scorer = scorer
        self.score = score or scorer.names[0]
        if self.score not in scorer.names:
            raise ValueError(f"{self.score}: the scorer has {', '.join(scorer.names)}")

    def fit(self, *_: Any, **__: Any) -> Detector:
        """Nothing to fit: the classifier is all there is."""
        return self

    def fit_features(self, *_: Any, **__: Any) -> Detector:
        """Nothing to fit."""
        return self

    def predict(self, images: Tensor) -> Tensor:
        """The scores of ``images``, floats in [0, 1] of shape (B, channels, H, W): float64 (B,).

        Its pixels name an image, so that the noise it gets is its own, wherever it stands in a batch.
        """
        ids = [hashlib.blake2b(image.cpu().numpy().tobytes(), digest_size=16).hexdigest() for image in images]
        return self.scorer(images, ids)[self.score]

    __call__ = predict
