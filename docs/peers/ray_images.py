"""Ray Data: read_images, map_batches, write_parquet.

python ray_images.py IMAGES OUTPUT SETTINGS.json
"""

import json
import os
import sys
from pathlib import Path

import ray
import torch
from PIL import Image

from regrad import Classifier, Scorer
from regrad.scores import load_module


class Score:
    """Decoded images to scores."""

    def __init__(self, settings):
        load_module(settings["score_module"])
        self.classifier = Classifier.load(settings["model"], weights=settings["weights"])
        self.scorer = Scorer(self.classifier, settings["scores"], samples=settings["samples"])

    def __call__(self, batch):
        """A batch of rows."""
        pictures = [self.classifier.preprocess(Image.fromarray(pixels)) for pixels in batch["image"]]
        names = [os.path.basename(path) for path in batch["path"]]  # of which noise is drawn
        scored = self.scorer(torch.stack(pictures), names)
        return {"id": names, **{name: values.numpy() for name, values in scored.items()}}


if __name__ == "__main__":
    images, output, settings = sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
    threads = {"env_vars": {"OMP_NUM_THREADS": str(os.cpu_count())}}  # else the scorer has one
    ray.init(address="local", num_cpus=4, runtime_env=threads)  # with 2, actors that wait for each other hold both
    pictures = ray.data.read_images(images, mode="RGB", include_paths=True, override_num_blocks=settings["blocks"])
    scored = pictures.map_batches(
        Score,
        fn_constructor_args=[settings],
        compute=ray.data.ActorPoolStrategy(size=1),
        batch_size=settings["batch"],
    )
    scored.write_parquet(output)
