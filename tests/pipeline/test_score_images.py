"""The scores as a step of a pipeline of one's own: on pixels, on bytes, on Hugging Face's structs.

tests/docs/test_pages.py has the pipeline itself, on `read_images`, beside the job.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from regrad.errors import UsageError
from regrad.pipeline import ScoreImages
from tests.shards import digits, png, write_hugging_face

SETTINGS = {"model": "tests.shards:build", "scores": ["regrad", "entropy"], "samples": 2}


def batch(images: list[Any], **columns: Any) -> dict[str, np.ndarray]:
    held = np.empty(len(images), object)
    held[:] = images
    return {"image": held, "path": np.array([f"{row}.png" for row in range(len(images))], object), **columns}


def test_bad_images_keep_their_rows(tmp_path: Path) -> None:
    sound = digits(3)
    images = [sound[0][1], b"no image", None, np.zeros((8, 8), np.float32), {"bytes": sound[1][1], "path": "x"}]
    found = ScoreImages(**SETTINGS, label_column="label")(batch(images, label=np.array([sound[0][2], 1, 2, 3, 99])))
    assert list(found["error"]) == [
        "",
        "decode: not an image of a known format",
        "read: the image is null",
        "preprocess: ValueError: pixels are float32, not uint8: their scale is unknown",
        "",
    ]
    assert list(np.isfinite(found["regrad"])) == [True, False, False, False, True]
    assert list(found["prediction"] == -1) == [False, True, True, True, False]
    assert list(np.isfinite(found["nll"])) == [True, False, False, False, False]  # 99 is no class
    alone = ScoreImages(**SETTINGS)(batch(images[:1]))
    assert alone["regrad"][0] == pytest.approx(found["regrad"][0], rel=1e-6)
    assert list(alone["path"]) == ["0.png"]


def test_logits_are_a_column_of_vectors() -> None:
    images, settings = [digits(1)[0][1], b"no image"], {"model": SETTINGS["model"], "scores": ["entropy"]}
    kept = ScoreImages(**settings, logits=True)(batch(images))["logits"]
    assert (kept.shape, kept.dtype) == ((2, 10), np.float32)
    assert list(np.isfinite(kept).all(1)) == [True, False]
    assert "logits" not in ScoreImages(**settings)(batch(images))


def test_embeddings_are_a_column_of_vectors() -> None:
    images, settings = [digits(1)[0][1], b"no image"], {"model": SETTINGS["model"], "scores": ["entropy"]}
    kept = ScoreImages(**settings, embeddings=True)(batch(images))["embedding"]
    assert (kept.shape, kept.dtype) == ((2, 128), np.float16)
    assert list(np.isfinite(kept).all(1)) == [True, False]


def test_a_network_that_gives_no_number_is_an_error_of_the_row() -> None:
    score = ScoreImages(model="tests.shards:build_nan", scores=["entropy"])
    found = score(batch([png(np.full((8, 8), 255)), digits(1)[0][1]]))
    assert list(found["error"]) == ["score: the network's outputs are not finite for this image", ""]
    assert found["prediction"][0] == -1


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("images", "images/0/a.png"),
        ("./images/", "images/0/a.png"),
        ("images", f"{Path.cwd()}/images/0/a.png"),
        ("/data/images", "/data/images/0/a.png"),
        ("s3://bucket/images", "bucket/images/0/a.png"),
        ("s3://bucket/images", "s3://bucket/images/0/a.png"),
    ],
)
def test_ids_are_relative_to_a_folder_however_it_is_called(folder: str, path: str) -> None:
    assert ScoreImages(**SETTINGS, relative_to=folder)._name(path) == "0/a.png"


@pytest.mark.usefixtures("ray_session")
def test_a_hugging_face_file_needs_no_conversion(tmp_path: Path) -> None:
    source = write_hugging_face(tmp_path / "train.parquet", digits(10))
    rows = ray.data.read_parquet(source).take_batch(10)  # as an actor has them
    scored = ScoreImages(**SETTINGS, image_column="img", id_column="label")(rows)
    assert set(scored["error"]) == {""}
    assert (scored["regrad"] > 0).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="no setting sigmas; there are channels"):
        ScoreImages(**SETTINGS, sigmas=1)
    with pytest.raises(UsageError, match="no score regrat"):
        ScoreImages(model="tests.shards:build", scores=["regrat"])
    score = ScoreImages(**SETTINGS)
    with pytest.raises(UsageError, match=r"no column 'path'; the columns are image; read_images\(.*include_paths"):
        score({"image": np.zeros((1, 8, 8), np.uint8)})
