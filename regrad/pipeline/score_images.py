"""The scores as a step of a Ray Data pipeline of one's own; nothing here needs Ray itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regrad import storage
from regrad.classifier import Classifier
from regrad.errors import UsageError
from regrad.pipeline.options import OPTIONS
from regrad.reading import decode, images
from regrad.reading.images import DEFAULT_MAX_PIXELS
from regrad.reading.inputs import absolute
from regrad.reading.naming.classes import Classes
from regrad.reading.samples import as_text
from regrad.scorer import Scorer
from regrad.scores import load_module

_SETTINGS = {
    role: {option.key for option in OPTIONS if option.role == role} - {"model"} for role in ("model", "scorer")
}
#: What fills up vectors.
_NOTHING = {"logits": np.float32(np.nan), "prediction_set": np.int32(-1), "embedding": np.float16(np.nan)}
_THREADS = 8


class ScoreImages:
    """A class for ``Dataset.map_batches``: rows of images in, the same rows with their scores out.

        ray.data.read_images("s3://bucket/images", mode="RGB", include_paths=True).map_batches(
            ScoreImages,
            fn_constructor_kwargs={"model": "torchvision:resnet50@IMAGENET1K_V2", "scores": ["regrad", "entropy"]},
            compute=ray.data.ActorPoolStrategy(size=2), num_gpus=1, batch_size=64)

    Images are decoded ones (uint8 (H, W) or (H, W, channels), as ``read_images`` gives them), encoded ones (bytes), or
    the structs {bytes, path} of Hugging Face. Columns added: ``prediction`` int32, ``confidence`` float32, one float64
    column per score, ``nll`` where there are labels, ``logits`` float32 (C,), ``prediction_set`` int32 (C,), -1 after
    its end, and ``embedding`` float16 (d,), if asked for, and ``error``: empty, or the stage and reason where an image
    could not be scored, with ``prediction`` -1 and NaN elsewhere. No row is lost, and no image ends the pipeline.

    The noise of an image is drawn from its id: equal ids, equal scores. ``regrad score`` names the image of a folder
    by its path below it, which ``relative_to`` does here.

    Args:
        model: as ``--model``.
        scores: names, as in ``--scores``.
        image_column, id_column, label_column: of the rows. An image's id is the text of its id column.
        relative_to: a folder or prefix that the ids lose.
        max_pixels: larger images are not decoded.
        score_modules: modules that define scores of one's own.
        settings: any other of ``regrad score`` that concerns the model or the scorer: ``weights``, ``image_size``,
            ``mean``, ``std``, ``sigma``, ``samples``, ``depth_decay``, ``engine``, ``tolerance``, ...

    Raises:
        UsageError: an unknown setting, score, model or column.
    """

    def __init__(
        self,
        model: str,
        scores: Sequence[str] = ("regrad",),
        image_column: str = "image",
        id_column: str = "path",
        label_column: str | None = None,
        relative_to: str | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        score_modules: Sequence[str] = (),
        **settings: Any,
    ):
        unknown = sorted(settings.keys() - _SETTINGS["model"] - _SETTINGS["scorer"])
        if unknown:
            known = ", ".join(sorted(_SETTINGS["model"] | _SETTINGS["scorer"] - {"scores"}))
            raise UsageError(f"ScoreImages: no setting {', '.join(unknown)}; there are {known}")
        for module in score_modules:
            load_module(module)
        images.lift_limit()  # it is built where it works: by Ray Data, in the worker
        arguments = {role: {key: settings[key] for key in settings if key in keys} for role, keys in _SETTINGS.items()}
        self.classifier = Classifier.load(model, **arguments["model"])
        self._classes = Classes.of(self.classifier.num_classes, self.classifier.class_names)
        self.scorer = Scorer(self.classifier, scores, **arguments["scorer"])
        classes = self.classifier.num_classes
        widths = {
            "logits": classes if self.scorer.logits else None,
            "prediction_set": None if self.scorer.coverage is None else classes,
            "embedding": self.scorer.embedding_width,
        }
        self._several = {name: np.full(width, _NOTHING[name]) for name, width in widths.items() if width}
        self._columns = (image_column, id_column, label_column)
        # Ray tells of a file as it was asked for it: from a relative path on, too.
        places = (relative_to.removeprefix("./"), absolute(relative_to)) if relative_to else ()
        self._prefixes = tuple(f"{_bare(place).rstrip('/')}/" for place in places)
        self._max_pixels = max_pixels

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch with the columns of the scores; ``batch_format="numpy"``, the default of ``map_batches``."""
        image, identifier, label = self._columns
        for name in filter(None, self._columns):
            if name not in batch:
                hint = "; read_images(..., include_paths=True) gives paths" if name == "path" else ""
                raise UsageError(f"ScoreImages: no column {name!r}; the columns are {', '.join(batch)}{hint}")
        ids = [self._name(as_text(value)) for value in batch[identifier]]
        labels = [self._classes.label(value) for value in batch[label]] if label else None
        with ThreadPoolExecutor(_THREADS) as pool:
            decoded = list(pool.map(self._tensor, batch[image]))
        return {**batch, **self._scored(decoded, ids, labels)}

    def _name(self, text: str) -> str:
        if not self._prefixes:
            return text
        bare = _bare(text)
        return next((bare.removeprefix(prefix) for prefix in self._prefixes if bare.startswith(prefix)), bare)

    def _scored(
        self, decoded: Sequence[Tensor | decode.BadImage], ids: Sequence[str], labels: Sequence[int | None] | None
    ) -> dict[str, np.ndarray]:
        rows = [row for row, image in enumerate(decoded) if isinstance(image, Tensor)]
        images = [image for image in decoded if isinstance(image, Tensor)]
        names = ["confidence", *(["nll"] if labels is not None else []), *self.scorer.names]
        columns: dict[str, np.ndarray] = {name: np.full(len(decoded), np.nan) for name in names}
        for name, nothing in self._several.items():
            columns[name] = np.tile(nothing, (len(decoded), 1))
        columns["confidence"] = columns["confidence"].astype(np.float32)
        columns["prediction"] = np.full(len(decoded), -1, np.int32)
        columns["error"] = np.array([str(f) if isinstance(f, decode.BadImage) else "" for f in decoded], object)
        if images:
            named = [ids[row] for row in rows]
            known = [labels[row] for row in rows] if labels is not None else None
            scored = self.scorer(torch.stack(images), named, known)
            for name, column in scored.items():
                columns[name][rows] = column.numpy()
        broken = [row for row in rows if not all(np.isfinite(columns[name][row]) for name in self.scorer.names)]
        for row in broken:
            columns["prediction"][row] = -1
            columns["error"][row] = "score: the network's outputs are not finite for this image"
        return columns

    def _tensor(self, value: Any) -> Tensor | decode.BadImage:
        try:
            if isinstance(value, Mapping):  # as Hugging Face's datasets keep it
                value = value.get("bytes")
            if value is None:
                raise decode.BadImage("read", "the image is null")
            if isinstance(value, bytes):
                return decode.to_compact(value, self.classifier.preprocessing, self._max_pixels)
            try:
                return self.classifier.preprocessing.compact(_picture(np.asarray(value)))
            except Exception as error:  # a user's transform may raise anything
                raise decode.BadImage("preprocess", storage.reason(error)) from error
        except decode.BadImage as error:
            return error


def _picture(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels are {pixels.dtype}, not uint8: their scale is unknown")
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _bare(uri: str) -> str:
    """Without the scheme, which Ray Data leaves out too."""
    return uri.partition("://")[2] or uri
