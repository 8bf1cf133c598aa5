"""Daft: read_parquet, download, decode_image, a class of one's own, write_parquet.

python daft_frame.py ROWS OUTPUT SETTINGS.json
"""

import json
import sys
from pathlib import Path

import daft
import torch
from daft.functions import decode_image, download
from PIL import Image

from regrad import Classifier, Scorer
from regrad.scores import load_module

images, output, settings = sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
SCORES = daft.DataType.struct({name: daft.DataType.float64() for name in settings["scores"]})


@daft.cls(max_concurrency=1)
class Score:
    """Decoded images to scores."""

    def __init__(self):
        load_module(settings["score_module"])
        self.classifier = Classifier.load(settings["model"], weights=settings["weights"])
        self.scorer = Scorer(self.classifier, settings["scores"], samples=settings["samples"])

    @daft.method.batch(return_dtype=SCORES, unnest=True, batch_size=settings["batch"])
    def score(self, image, name):
        """A struct of scores a row."""
        pictures = [self.classifier.preprocess(Image.fromarray(pixels)) for pixels in image.to_pylist()]
        scored = self.scorer(torch.stack(pictures), name.to_pylist())
        columns = [scored[score].tolist() for score in settings["scores"]]
        return [dict(zip(settings["scores"], row, strict=True)) for row in zip(*columns, strict=True)]


frame = daft.read_parquet(f"{images}/*.parquet")
frame = frame.with_column("image", decode_image(download(daft.col("uri"))))
frame.select("id", Score().score(daft.col("image"), daft.col("id"))).write_parquet(output)
