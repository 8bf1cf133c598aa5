"""NeMo Curator: its reader of tars, a stage of one's own, its Parquet writer, on Ray Data.

python curator_images.py TARS OUTPUT SETTINGS.json
"""

import json
import os
import sys
import tarfile
from pathlib import Path

import pandas as pd
import torch
from nemo_curator.backends.ray_data import RayDataExecutor
from nemo_curator.pipeline import Pipeline
from nemo_curator.stages.base import ProcessingStage
from nemo_curator.stages.file_partitioning import FilePartitioningStage
from nemo_curator.stages.image.io.image_reader import ImageReaderStage
from nemo_curator.stages.text.io.writer import ParquetWriter
from nemo_curator.tasks import DocumentBatch, ImageBatch
from nvidia.dali import fn, pipeline_def, types
from PIL import Image

from regrad import Classifier, Scorer
from regrad.scores import load_module


class Reader(ImageReaderStage):
    """Its reader without a GPU: it builds a pipeline for device 0, which DALI refuses where there is none."""

    def _create_dali_pipeline(self, tar_paths):
        @pipeline_def(batch_size=self.dali_batch_size, num_threads=os.cpu_count(), device_id=None)
        def pictures():
            encoded = fn.readers.webdataset(paths=tar_paths, ext=["jpg;png"], missing_component_behavior="skip")
            return fn.decoders.image(encoded, device="cpu", output_type=types.RGB)

        pipeline = pictures()
        pipeline.build()
        return pipeline


class Score(ProcessingStage[ImageBatch, DocumentBatch]):
    """Decoded images to scores."""

    name = "score"

    def __init__(self, settings):
        self.settings = settings

    def setup(self, _=None):
        """The network, in the worker."""
        load_module(self.settings["score_module"])
        self.classifier = Classifier.load(self.settings["model"], weights=self.settings["weights"])
        self.scorer = Scorer(self.classifier, self.settings["scores"], samples=self.settings["samples"])

    def num_workers(self):
        """One, with all threads."""
        return 1

    def process(self, task):
        """One batch; its images have places in their tar for ids, of which the names are read again."""
        tar = Path(task.data[0].image_path).parent
        with tarfile.open(tar) as members:
            names = members.getnames()
        ids = [names[int(image.image_id.rpartition("_")[2])] for image in task.data]
        pictures = [self.classifier.preprocess(Image.fromarray(image.image_data)) for image in task.data]
        scored = self.scorer(torch.stack(pictures), ids)
        rows = pd.DataFrame({"id": ids, **{name: values.numpy() for name, values in scored.items()}})
        return DocumentBatch(dataset_name=task.dataset_name, data=rows, _metadata={"source_files": [str(tar)]})


if __name__ == "__main__":
    tars, output, settings = sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
    os.environ["OMP_NUM_THREADS"] = str(os.cpu_count())
    os.environ["RAY_ADDRESS"] = "local"
    stages = [
        FilePartitioningStage(tars, files_per_partition=1, file_extensions=[".tar"]),
        Reader(dali_batch_size=settings["batch"]),
        Score(settings),
        ParquetWriter(output),
    ]
    Pipeline(name="scores", stages=stages).run(RayDataExecutor())
