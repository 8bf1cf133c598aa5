"""Packs of scikit-learn's digits in the size of MNIST's, in place of the packs that the tables are measured on."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
from PIL import Image
from sklearn.datasets import load_digits


def write_packs(folder: Path, **parts: slice) -> None:
    """A pack for each name, of these digits; ``mnist_train`` becomes ``mnist-train.parquet``."""
    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        images = []
        for pixels in digits.images[part]:
            buffer = io.BytesIO()
            Image.fromarray((pixels * (255 / 16)).astype("uint8"), "L").resize((28, 28)).save(buffer, "PNG")
            images.append(buffer.getvalue())
        file = name.replace("_", "-")
        rows = {"id": [f"{file}/{row}" for row in range(len(images))], "image": images}
        labels = pa.array(digits.target[part], pa.int32())
        pa.parquet.write_table(pa.table(rows | {"label": labels}), folder / f"{file}.parquet")
