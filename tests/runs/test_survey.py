"""What a survey sums up is what the metrics say of the rows, in a memory that does not grow with them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regrad import metrics, table
from regrad.metrics import calibration
from regrad.metrics.wilson import share_interval
from regrad.runs import scored
from regrad.runs.sets import SetSizes
from regrad.runs.survey import Confidence, Losses, Survey, align
from tests.conftest import run_json
from tests.outputs import commit_rows


@pytest.mark.parametrize("seed", range(3))
def test_confidence_equals_the_metrics_on_the_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.r_[rng.beta(8, 1, 3000), np.arange(16) / 15].astype(np.float32).astype(float)
    right = rng.random(values.size) < values**2
    made = Confidence()
    for piece in np.array_split(np.arange(values.size), 4):
        made.add(values[piece], right[piece])
    found = made.numbers()
    assert found["accuracy"] == pytest.approx(right.mean(), abs=1e-12)
    assert found["ece"] == pytest.approx(metrics.ece(values, right), abs=1e-9)
    diagram = made.diagram()
    place = calibration.bin_of(values)
    assert diagram["images"] == [int((place == b).sum()) for b in np.unique(place)]
    assert diagram["accuracy"] == pytest.approx([right[place == b].mean() for b in np.unique(place)])
    counts = [(int(right[place == b].sum()), int((place == b).sum())) for b in np.unique(place)]
    assert diagram["intervals"] == [pytest.approx(share_interval(*pair)) for pair in counts]
    assert diagram["confidence"] == pytest.approx([values[place == b].mean() for b in np.unique(place)])
    for name, ends in made.intervals().items():
        assert ends is not None
        assert ends[0] < found[name] < ends[1] or name == "ece"  # resampling adds noise that ECE counts as error


def test_sets_are_counted_by_size_and_by_what_they_hold() -> None:
    rng = np.random.default_rng(7)
    sets = [rng.permutation(5)[: rng.integers(0, 4)].tolist() for _ in range(200)]
    labels = np.where(rng.random(200) < 0.2, scored.NO_LABEL, rng.integers(0, 6, 200))
    labelled = (labels >= 0) & (labels < 5)
    made = SetSizes(0.9, classes=5)
    for places in np.array_split(np.arange(200), 3):
        parts = [pa.array([sets[place] for place in some], pa.list_(pa.int32())) for some in (places[:5], places[5:])]
        made.add(pa.chunked_array(parts), labels[places], labelled[places])
    held = sum(label in some for label, some, known in zip(labels, sets, labelled, strict=True) if known)
    sizes = [len(some) for some in sets]
    wanted = {"mean_size": np.mean(sizes), "empty": sizes.count(0) / 200, "single": sizes.count(1) / 200}
    assert made.numbers() == pytest.approx({"coverage": 0.9} | wanted)
    share, interval = held / labelled.sum(), share_interval(held, int(labelled.sum()))
    assert made.covered() == {"share": share, "interval": interval, "labelled": labelled.sum()}
    assert SetSizes(0.9, classes=5).covered() is None


def test_labelled_rows_are_sampled_with_all_their_scores(write_run: Any) -> None:
    scores = {"regrad": np.arange(6.0), "entropy": 10 - np.arange(6.0)}
    run = scored.load_run(
        "run", write_run("run", scores, labels=[0, 1, None, 2, 99, 3], predictions=[0, 0, 2, 2, 4, 4])
    )
    values, wrong = Survey(run, ["regrad", "entropy"], sampled=True).sample.rows()
    kept = sorted(zip(values.tolist(), wrong.tolist(), strict=True))
    assert kept == [([0, 10], False), ([1, 9], True), ([3, 7], False), ([5, 5], True)]
    assert Survey(run, ["regrad", "entropy"]).sample.images == 0


@pytest.mark.parametrize("seed", range(3))
def test_losses_have_their_mean_and_the_interval_of_a_plain_bootstrap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.exponential(0.3, 2000) ** 2
    made = Losses()
    for piece in np.array_split(np.r_[values, math.nan, math.nan], 3):
        made.add(piece)
    assert made.mean() == pytest.approx(values.mean(), rel=1e-12)
    plain = [rng.choice(values, values.size).mean() for _ in range(1000)]
    ends = made.intervals()["nll"]
    assert ends is not None
    assert ends == pytest.approx(np.quantile(plain, [0.025, 0.975]), rel=0.03)


def test_without_a_loss_there_is_no_mean() -> None:
    assert Losses().mean() is None
    assert Losses().intervals() == {"nll": None}


def test_align_sums_images_with_and_without_labels(write_run: Any) -> None:
    labels = [None, 1, 1, None, 4, 9]
    known = Survey(scored.load_run("a", write_run("a", {"s": [1.0, 2, 2, 3, 3, 1]}, labels=labels)), ["s"])
    other = Survey(scored.load_run("b", write_run("b", {"s": [2.0, 5]})), ["s"])
    values, (ours, theirs), exact = align([known, other], "s")
    assert exact
    assert values.tolist() == [1, 2, 3, 5]
    assert (ours.tolist(), theirs.tolist()) == ([2, 2, 2, 0], [0, 1, 0, 1])
    _, right, wrong = known.errors("s")  # predictions are 0, 1, 2, 3, 4, 5
    assert (right.sum(), wrong.sum()) == (2, 2)


REPORT = """
import json, resource, sys
from regrad.report import numbers
from regrad.runs import scored, tally
tally.Tally.__init__.__defaults__ = (2**16,)  # the default cells are for a hundred times the rows
run = scored.load_run("id", sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report, _ = numbers.summarise(run, [scored.load_run("ood", sys.argv[1])], sys.argv[2], top=20)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([(after - before) / 1024, report["scores"]["regrad"]["ood"]["ood"]["auroc"], report["id"]["images"]]))
"""


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    rng, part, parts = np.random.default_rng(0), 125_000, 16
    schema = table.score_schema(["regrad", "entropy"])
    (tmp_path / "run/scores").mkdir(parents=True)
    (tmp_path / "run/run.json").write_text(json.dumps(run_json()))
    for number in range(parts):
        columns = {
            "id": [f"shard-{number:05}/image-{row:09}" for row in range(part)],
            "source": [f"s3://bucket/shard-{number:05}.tar"] * part,
            "row": np.arange(part),
            "label": rng.integers(0, 10, part),
            "prediction": rng.integers(0, 10, part),
            "confidence": rng.random(part).astype(np.float32),
            "nll": rng.exponential(1, part),
            "digest": [f"{row:032x}" for row in range(part)],
            "regrad": rng.lognormal(0, 1, part),
            "entropy": rng.random(part),
        }
        rows = pa.table(columns, schema=schema)
        commit_rows(str(tmp_path / "run"), f"{number:05}", rows)
    result = subprocess.run(
        [sys.executable, "-c", REPORT, str(tmp_path / "run"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    megabytes, auroc, images = json.loads(result.stdout)
    assert images == part * parts
    assert auroc == pytest.approx(0.5, abs=1e-6)  # against itself: every tie counts half
    # As one Arrow table the rows take 270 MB, and read whole and sorted as arrays several times that.
    assert megabytes < 250, f"{megabytes:.0f} MB"
