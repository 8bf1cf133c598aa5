"""A DataLoader: processes decode, the main one scores, and a file is written at the end.

python dataloader.py IMAGES OUTPUT SETTINGS.json
"""

import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from regrad import Classifier, Scorer
from regrad.scores import load_module


class Images(Dataset):
    """The files of a folder as the network's images, with their names."""

    def __init__(self, folder, preprocess):
        self.folder, self.names, self.preprocess = folder, sorted(os.listdir(folder)), preprocess

    def __len__(self):
        return len(self.names)

    def __getitem__(self, number):
        name = self.names[number]
        with Image.open(os.path.join(self.folder, name)) as picture:
            return self.preprocess(picture.convert("RGB")), name


if __name__ == "__main__":
    images, output, settings = sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
    load_module(settings["score_module"])
    classifier = Classifier.load(settings["model"], weights=settings["weights"])
    scorer = Scorer(classifier, settings["scores"], samples=settings["samples"])
    rows = []
    loader = DataLoader(Images(images, classifier.preprocess), settings["batch"], num_workers=os.cpu_count())
    for batch, names in loader:
        columns = {name: values.tolist() for name, values in scorer(batch, names).items()}
        rows.append(pa.table({"id": names, **columns}))
    os.makedirs(output, exist_ok=True)
    pq.write_table(pa.concat_tables(rows), os.path.join(output, "scores.parquet"))
