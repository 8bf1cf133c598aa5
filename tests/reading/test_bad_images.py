"""Every way an image can be strange or bad: the strange ones are scored, the bad ones quarantined with the reason."""

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regrad import Classifier, table
from regrad.pipeline import process
from regrad.pipeline.plan import make_plan
from regrad.pipeline.worker import Task, UnitScorer
from regrad.reading.decode import to_tensor
from regrad.reading.inputs import list_sources
from tests.bad_images import MAX_PIXELS, PIXELS, bad, good, strange
from tests.shards import build, records_of, write_parquet

GOOD, STRANGE, BAD = good(), strange(), bad()
SCORES = ("regrad", "entropy")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    network, known = build()
    return Classifier(network, **known)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", GOOD)
def test_every_form_of_a_picture_shows_the_same_pixels(classifier: Classifier, name: str) -> None:
    image = to_tensor(GOOD[name], classifier, MAX_PIXELS)
    np.testing.assert_allclose(image[0].numpy() * 255, PIXELS, atol=1e-4)


def test_avif_is_read(classifier: Classifier) -> None:
    buffer = io.BytesIO()
    try:
        Image.fromarray(PIXELS).convert("RGB").save(buffer, "AVIF", quality=100)
    except (KeyError, OSError):
        pytest.skip("this Pillow is built without AVIF")
    np.testing.assert_allclose(to_tensor(buffer.getvalue(), classifier)[0].numpy() * 255, PIXELS, atol=8)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("one pixel", 77, 77),
        ("20,000 pixels wide", 83, 84),  # 0.299 * 9 + 0.587 * 99 + 0.114 * 199
        ("20,000 pixels high", 50, 50),
        ("a dark 16-bit PNG", 0, 1),  # 255 of 65,535: stretched to the full range it would be another picture
    ],
)
def test_strange_shapes_and_ranges(classifier: Classifier, name: str, low: float, high: float) -> None:
    image = to_tensor(STRANGE[name], classifier, MAX_PIXELS) * 255
    assert low <= image.min() <= image.max() <= high


@pytest.mark.parametrize("name", ["CMYK JPEG of Adobe's", "progressive JPEG"])
def test_lossy_files_look_alike(classifier: Classifier, name: str) -> None:
    np.testing.assert_allclose(to_tensor(STRANGE[name], classifier)[0].numpy() * 255, PIXELS, atol=40)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the real worker makes of all of them in one shard."""
    folder = tmp_path_factory.mktemp("images")
    everything = {**GOOD, **STRANGE, **{name: content for name, (content, *_) in BAD.items()}}
    source = write_parquet(folder / "in.parquet", [(name, content, 1) for name, content in everything.items()])
    model = {"spec": "tests.shards:build_nan"}
    settings: dict[str, Any] = {"max_pixels": MAX_PIXELS, "batch_size": 16}
    settings["scorer"] = {"scores": SCORES, "samples": 2}
    task = Task(str(folder / "out"), model, fingerprint=Classifier.load(**model).fingerprint, provenance={}, **settings)
    units = make_plan(list_sources([source]), 30, "").pending
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        process.set_up(task.threads)
        records = records_of(UnitScorer(task).score(units))
    assert not [str(warning.message) for warning in said if "PIL" in warning.filename]
    for kind, count in (("rows_scored", len(GOOD) + len(STRANGE)), ("rows_quarantined", len(BAD))):
        assert sum(record[kind] for record in records) == count
    return folder / "out"


def test_good_images_beside_bad_ones_are_scored(output: Path) -> None:
    rows = {row["id"]: row for row in table.read(str(output)).to_pylist()}
    assert rows.keys() == {*GOOD, *STRANGE}
    # Entropy takes no noise, so the same pixels have the same score under any name.
    for name in GOOD:
        assert rows[name]["entropy"] == pytest.approx(rows["grey"]["entropy"], rel=1e-5)


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_quarantined_with_stage_and_reason(output: Path, name: str) -> None:
    _, stage, pattern = BAD[name]
    (row,) = (row for row in table.read(str(output), kind="quarantine").to_pylist() if row["id"] == name)
    assert row["stage"] == stage, row["reason"]
    assert re.search(pattern, row["reason"]), row["reason"]
    assert "\n" not in row["reason"]
    assert row["row"] == len(GOOD) + len(STRANGE) + [*BAD].index(name)


def test_what_is_refused_takes_no_memory(classifier: Classifier) -> None:
    """Claimed pixels are never allocated: the peak of the process stays where it is."""
    import resource

    from regrad.reading.decode import BadImage
    from tests.bad_images import bombs, heavy

    files, packed = [content for content, *_ in bombs().values()], {n: c for n, c in heavy().items() if "bomb" in n}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in files:
        with pytest.raises(BadImage):
            to_tensor(content, classifier, MAX_PIXELS)
    assert len([to_tensor(content, classifier, MAX_PIXELS) for content in packed.values()]) == 4
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
