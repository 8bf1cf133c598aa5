"""What the network sees, on made-up embeddings: a class that is missing, one that has changed, and no embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from regrad.audit import night, seen
from regrad.audit.gates import METRICS, parse_gates
from regrad.metrics.two_samples import Pooled, fourier_features, two_samples
from regrad.runs import scored
from regrad.runs.embeddings import sample_embeddings
from tests.audit.test_night import counted

CENTRES = np.random.default_rng(1).standard_normal((10, 12)) * 4


def run_of(
    write_run: Any, name: str, classes: np.ndarray, seed: int, moved: dict[int, float] | None = None
) -> scored.Run:
    """A run of images of these ``classes``, each seen around the centre of its class."""
    rng = np.random.default_rng(seed)
    vectors = CENTRES[classes] + rng.standard_normal((len(classes), 12))
    for place, by in (moved or {}).items():
        vectors[classes == place] += by
    given = {"predictions": classes.tolist(), "embeddings": vectors}
    return scored.load_run(name, write_run(name, {"regrad": rng.random(len(classes))}, **given))


@pytest.fixture
def known(write_run: Any) -> scored.Run:
    return run_of(write_run, "known", np.arange(600) % 10, 0)


def numbers_of(known: scored.Run, new: scored.Run) -> dict[str, Any]:
    told = counted(new, night.calibrate(known, "regrad", "quantile=0.9"))
    assert {name: told["metrics"][name] for name in METRICS if name.startswith("embedding")} == (
        seen.embedding_metrics(told["embedding_drift"])
    )
    return told


def test_a_night_of_the_same_images_is_no_drift(write_run: Any, known: scored.Run) -> None:
    told = numbers_of(known, run_of(write_run, "new", np.arange(500) % 10, 1))
    numbers = told["embedding_drift"]
    samples = [sample_embeddings(run, 1000) for run in (known, scored.load_run("x", f"{known.output[:-5]}new"))]
    pooled = Pooled(samples[0].vectors, samples[1].vectors)
    expected = two_samples(pooled, fourier_features(pooled))
    assert {name: numbers[name] for name in vars(expected)} == vars(expected)
    assert (numbers["drifted"], told["metrics"]["embedding_classes"]) == (False, 0)
    assert numbers["sampled"] == {"baseline": 600, "night": 500}
    assert len(numbers["classes"]) == 10
    (sentence,) = seen.embedding_drift_in_words(numbers, None)
    assert sentence.startswith("No drift of what the network sees is found: a classifier tells the embeddings ")


def test_a_class_that_is_missing_is_named(write_run: Any, known: scored.Run) -> None:
    classes = np.arange(500) % 10
    classes[(classes == 4) & (np.arange(500) > 60)] = 5
    told = numbers_of(known, run_of(write_run, "new", classes, 1))
    numbers = told["embedding_drift"]
    assert numbers["drifted"]
    assert numbers["mmd_p"] < 0.005
    by_class = {entry["class"]: entry for entry in numbers["classes"]}
    assert [place for place, entry in by_class.items() if entry["drifted"]] == [4, 5]
    assert (by_class[4]["images"], by_class[4]["baseline_images"], by_class[4]["mmd"]) == (6, 60, None)
    assert by_class[4]["share_p_adjusted"] < 1e-4
    assert told["metrics"]["embedding_classes"] == 2
    names = ["cat" if place == 4 else str(place) for place in range(10)]
    assert seen.embedding_drift_in_words(numbers, names)[1] == (
        "The share of the images has changed in 2 of 10 predicted classes (corrected for all), first of all cat: 1.2 % "
        "of all images, 10.0 % of the baseline's."
    )


def test_a_class_of_other_images_is_named(write_run: Any, known: scored.Run) -> None:
    numbers = numbers_of(known, run_of(write_run, "new", np.arange(500) % 10, 1, {7: 1.5}))["embedding_drift"]
    assert numbers["classes"][0]["class"] == 7
    assert [entry["class"] for entry in numbers["classes"] if entry["drifted"]] == [7]
    assert numbers["classes"][0]["p_adjusted"] < 0.01
    assert numbers["classes"][0]["share_p_adjusted"] > 0.5
    assert seen.embedding_drift_in_words(numbers, None)[1].startswith("The images have changed in 1 of 10 predicted ")


def test_without_embeddings_of_both_nothing_is_told(write_run: Any, known: scored.Run) -> None:
    bare = scored.load_run("bare", write_run("bare", {"regrad": np.arange(100.0)}))
    for pair in ((known, bare), (bare, known), (known, run_of(write_run, "few", np.arange(19) % 10, 1))):
        told = numbers_of(*pair)
        assert told["embedding_drift"] is None
        assert told["metrics"]["embedding_auroc"] is None
    judged = night.with_verdicts({"night": "n", "again": {}} | told, parse_gates(["embedding_mmd_p > 0.01"]))
    assert judged["gates"][0]["verdict"] == "exceeded"
    assert judged["headline"][1] == "Gate exceeded: embedding_mmd_p > 0.01 (it has no value)."


def test_of_many_images_a_sample_is_compared(
    write_run: Any, known: scored.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "NUMBERS", 12 * 250 + 11)
    numbers = numbers_of(known, run_of(write_run, "new", np.arange(300) % 10, 1))["embedding_drift"]
    assert numbers["sampled"] == {"baseline": 250, "night": 250}
    assert {entry["baseline_images"] for entry in numbers["classes"]} == {60}
