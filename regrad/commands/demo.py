"""The whole road in two minutes, on data that comes with scikit-learn: ``make demo``.

A small CNN learns handwritten digits. Then it scores digits that it has not seen, patches of photographs and digits
turned upside down, with the commands that this script prints: the ones to use on your own images and your own model.
Everything is written to ``demo/``; the page to look at is ``demo/report/report.html``.
"""

from __future__ import annotations

import importlib
import io
import shlex
import shutil
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrad.cli import Parser, add_common, loading, run_command

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

TURNED = (2, 3, 4, 5, 7)  # the others are still digits upside down, or nearly
SIZE, PATCHES, TRAINING_IMAGES, EPOCHS = 8, 400, 1000, 12
SCORES = "regrad,exgrad,entropy,max_probability"


def network() -> tuple[nn.Module, dict[str, Any]]:
    """What ``--model regrad.commands.demo:network`` loads: an untrained module, and what its preprocessing needs."""
    from torch import nn

    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    module = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * (SIZE // 2) ** 2, 10))
    names = [str(digit) for digit in range(10)]
    return module, {"image_size": SIZE, "channels": 1, "mean": 0.3, "std": 0.38, "class_names": names}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments; returns its exit code."""
    return run_command(argv, demonstrate)


def demonstrate(arguments: Sequence[str]) -> int:
    """Prepare model and shards, then score and report; the first exit code that is not 0, else 0."""
    folder, started = Path(parser().parse_args(arguments).folder), time.monotonic()

    with loading():
        import numpy as np
        from safetensors.torch import save_file

    for name in ("data", "scores", "report"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "data").mkdir(parents=True)

    images, labels = digits()
    print(f"training a small CNN on {TRAINING_IMAGES} of scikit-learn's digits", flush=True)
    save_file(train(images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES]), folder / "digits.safetensors")

    images, labels = images[TRAINING_IMAGES:], labels[TRAINING_IMAGES:]
    turned = np.isin(labels, TURNED)
    inputs = {
        "digits": [write_tar(folder / f"data/digits-{k}.tar", images[k::2], labels[k::2]) for k in (0, 1)],
        "photos": [write_parquet(folder / "data/photos.parquet", patches())],
        "upside-down": [write_folder(folder / "data/upside-down", images[turned, ::-1, ::-1], labels[turned])],
    }
    outputs = {name: str(folder / "scores" / name) for name in inputs}
    weights = str(folder / "digits.safetensors")
    model = ["--model", "regrad.commands.demo:network", "--weights", weights, "--scores", SCORES]
    commands = [["score", *inputs[name], *model, "--output", outputs[name]] for name in inputs]
    unknown = [f"{name}={outputs[name]}" for name in ("photos", "upside-down")]
    commands.append(["report", "--id", outputs["digits"], "--ood", *unknown, "--output", f"{folder}/report"])
    for name, *arguments in commands:
        print(f"\n$ regrad {shlex.join([name, *arguments])}", flush=True)
        if code := importlib.import_module(f"regrad.commands.{name}").main(arguments):
            return code
    print(f"\n{time.monotonic() - started:.0f} s. Open {(folder / 'report/report.html').resolve()}")
    return 0


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits in random order: uint8 (n, 8, 8), and their classes (n,)."""
    import numpy as np
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return (data.images[order] * (255 / 16)).round().astype(np.uint8), data.target[order]


def patches() -> np.ndarray:
    """Squares cut at random from scikit-learn's two photographs, grey and reduced: uint8 (PATCHES, 8, 8)."""
    import numpy as np
    from sklearn.datasets import load_sample_images
    from sklearn.feature_extraction.image import extract_patches_2d

    photos = load_sample_images().images
    squares = [extract_patches_2d(photo, (160, 160), max_patches=PATCHES // 2, random_state=0) for photo in photos]
    return np.concatenate(squares).reshape(PATCHES, SIZE, 20, SIZE, 20, 3).mean((2, 4, 5)).astype(np.uint8)


def train(images: np.ndarray, labels: np.ndarray) -> dict[str, torch.Tensor]:
    """The state dict of :func:`network` after some epochs."""
    import torch

    from regrad.models.training import train_network

    torch.manual_seed(0)
    torch.set_num_threads(1)  # such small batches are slower on two
    module, known = network()
    inputs = (torch.from_numpy(images)[:, None] / 255 - known["mean"]) / known["std"]
    train_network(module, inputs, torch.from_numpy(labels).long(), EPOCHS, batch_size=50, learning_rate=4e-3)
    return module.state_dict()


def png(pixels: np.ndarray) -> bytes:
    """A grey picture as the content of a PNG file."""
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
    """A WebDataset shard: ``KEY.png`` and ``KEY.cls`` for each image."""
    with tarfile.open(path, "w") as archive:
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            for suffix, content in (("png", png(pixels)), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{path.stem}/{number:04}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return str(path)


def write_parquet(path: Path, images: np.ndarray) -> str:
    """A Parquet file as the Hugging Face hub keeps images: structs of bytes and path."""
    import pyarrow as pa
    import pyarrow.parquet

    rows = [{"bytes": png(pixels), "path": f"patch-{number:04}.png"} for number, pixels in enumerate(images)]
    pa.parquet.write_table(pa.table({"image": rows}), path)
    return str(path)


def write_folder(path: Path, images: np.ndarray, labels: np.ndarray) -> str:
    """A folder with one sub-folder per class."""
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        file = path / str(label) / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
    return str(path)


def parser() -> Parser:
    """Its flags."""
    flags = Parser("demo", __doc__, "[DIR]")
    most, run = flags.groups("run")
    most.add_argument("folder", nargs="?", default="demo", metavar="DIR", help="to write to (default: %(default)s)")
    add_common(run)
    return flags
