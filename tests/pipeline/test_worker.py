import hashlib
import io
import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torch import Tensor

from regrad import Classifier, Scorer, table
from regrad.errors import RegradError
from regrad.pipeline.plan import Unit, make_plan
from regrad.pipeline.results import Spent
from regrad.pipeline.worker import Task, UnitScorer
from regrad.reading.inputs import list_sources
from regrad.reading.naming.classes import Classes
from regrad.reading.samples import Columns
from tests.shards import Row, digits, png, records_of, write_folder, write_hugging_face, write_parquet, write_tar

SCORES = ("regrad", "entropy")


def task(output: Path, factory: str = "build", **settings: Any) -> Task:
    model = {"spec": f"tests.shards:{factory}"}
    fingerprint = Classifier.load(**model).fingerprint
    scorer = {"scores": SCORES, "samples": 2, "depth_decay": 0.3}
    return Task(str(output), model, scorer, fingerprint, {"regrad_version": "test"}, batch_size=16, **settings)


def units(*inputs: str, unit_rows: int = 25) -> list[Unit]:
    columns = Columns(classes=Classes(10))  # of the network, without names
    return list(make_plan(list_sources(inputs, columns), unit_rows, "").pending)


def score(output: Path, *inputs: str, unit_rows: int = 25, **settings: Any) -> list[dict[str, Any]]:
    return records_of(UnitScorer(task(output, **settings)).score(units(*inputs, unit_rows=unit_rows)))


def rows(output: Path, kind: str = "scores") -> dict[str, dict[str, Any]]:
    found = table.read(str(output), kind=kind).to_pylist()
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"]: row for row in found}


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """The scores of the plain loop a user of the library writes: one image at a time."""
    classifier = Classifier.load("tests.shards:build")
    scorer = Scorer(classifier, scores=SCORES, samples=2)
    found = {}
    for name, image, _ in digits():
        columns = scorer(classifier.preprocess(Image.open(io.BytesIO(image)))[None], [name])
        found[name] = {key: column.item() for key, column in columns.items()}
    return found


@pytest.mark.parametrize("form", ["tar", "parquet", "hugging-face", "folder"])
def test_every_form_gives_the_scores_of_the_plain_loop(tmp_path: Path, form: str, expected: dict[str, Any]) -> None:
    writers: dict[str, Any] = {"tar": write_tar, "hugging-face": write_hugging_face, "folder": write_folder}
    write = writers.get(form, write_parquet)
    source = write(tmp_path / {"tar": "in.tar", "folder": "in"}.get(form, "in.parquet"), digits())
    # In a tar the id is the key, which has no extension; the noise is keyed by the id, so ids must be the same here.
    columns = Columns(id="name" if form == "tar" else None)
    records = score(tmp_path / "out", source, columns=columns)
    assert sum(record["rows_scored"] for record in records) == 60
    found = rows(tmp_path / "out")
    order = sorted(name for name, *_ in digits()) if form == "folder" else [name for name, *_ in digits()]
    for name, _, label in digits():
        row = found[name]
        assert (row["source"], row["row"], row["label"]) == (source, order.index(name), label)
        assert row["prediction"] == expected[name]["prediction"]
        np.testing.assert_allclose([row[key] for key in SCORES], [expected[name][key] for key in SCORES], rtol=1e-6)


@pytest.mark.parametrize(("unit_rows", "batch_size"), [(1, 7), (13, 1), (1000, 64)])
def test_scores_do_not_depend_on_units_or_batches(
    tmp_path: Path, unit_rows: int, batch_size: int, expected: dict[str, Any]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    settings = task(tmp_path / "out")
    scorer = UnitScorer(Task(**{**vars(settings), "batch_size": batch_size}))
    records = records_of(scorer.score(units(source, unit_rows=unit_rows)))
    assert [record["start"] for record in records] == list(range(0, 60, unit_rows))
    found = rows(tmp_path / "out")
    for name in expected:
        np.testing.assert_allclose([found[name][key] for key in SCORES], [expected[name][key] for key in SCORES], 1e-6)


def test_bad_rows_cost_nobody_else_anything(tmp_path: Path) -> None:
    good = digits(8)
    first, image, label = good[0]
    bad: list[Row] = [("text", b"no image", 1), ("empty", b"", 1), ("half", image[:70], 1), (first, image, label)]
    white = ("white", png(np.full((8, 8), 255)), 1)
    large = ("large", png(np.zeros((300, 300))), 1)
    source = write_parquet(tmp_path / "in.parquet", [*good[:4], *bad, *good[4:], white, large])
    (record,) = score(tmp_path / "out", source, factory="build_nan", max_pixels=10_000)
    assert (record["rows_in"], record["rows_scored"], record["rows_quarantined"]) == (14, 9, 5)
    names = [name for name, *_ in good]
    assert list(rows(tmp_path / "out")) == [f"{first} (row 0)", *names[1:4], f"{first} (row 7)", *names[4:]]
    quarantined = {row["row"]: row for row in table.read(str(tmp_path / "out"), kind="quarantine").to_pylist()}
    assert {row: (found["id"], found["stage"]) for row, found in quarantined.items()} == {
        4: ("text", "decode"),
        5: ("empty", "decode"),
        6: ("half", "decode"),
        12: ("white", "score"),
        13: ("large", "decode"),
    }
    assert "regrad is nan" in quarantined[12]["reason"]
    assert "300 x 300 pixels" in quarantined[13]["reason"]


def test_a_unit_that_fails_to_read_still_adds_up(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(Path(write_tar(tmp_path / "b.tar", digits(9))).read_bytes()[:19_900])
    (tmp_path / "c.parquet").write_bytes(b"nothing")
    records = score(tmp_path / "out", str(tmp_path / "*.*"))
    assert [(record["rows_scored"], record["rows_quarantined"]) for record in records] == [(6, 1), (9, 0), (0, 1)]
    reasons = {row["source"]: row["reason"] for row in table.read(str(tmp_path / "out"), kind="quarantine").to_pylist()}
    assert "cannot be read from row 6 on" in reasons[str(tmp_path / "a.tar")]
    assert "not readable as Parquet" in reasons[str(tmp_path / "c.parquet")]


def test_labels_are_counted_where_the_model_knows_them(tmp_path: Path) -> None:
    relabelled = [(name, image, 658 if row < 5 else label) for row, (name, image, label) in enumerate(digits())]
    (record,) = score(tmp_path / "out", write_parquet(tmp_path / "in.parquet", relabelled), unit_rows=100)
    found = rows(tmp_path / "out")
    assert (record["labelled"], record["labels_outside"]) == (55, 5)
    assert record["correct"] == sum(found[name]["prediction"] == label for name, _, label in relabelled)
    assert [found[name]["label"] for name, *_ in relabelled] == [label for *_, label in relabelled]


def test_the_loss_of_each_label_is_written(tmp_path: Path) -> None:
    relabelled = [(name, image, 658 if row < 5 else label) for row, (name, image, label) in enumerate(digits())]
    score(tmp_path / "out", write_parquet(tmp_path / "in.parquet", relabelled))
    found = rows(tmp_path / "out")
    classifier = Classifier.load("tests.shards:build")
    for name, image, label in relabelled:
        if label == 658:
            assert found[name]["nll"] is None
            continue
        pixels = classifier.preprocess(Image.open(io.BytesIO(image)))[None]
        logits = classifier.network.eval()(classifier.normalize(pixels)).double()
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor([label])).item()
        assert found[name]["nll"] == pytest.approx(expected, rel=1e-5)


def test_every_row_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    data = [("good", digits(1)[0][1], 0), ("bad", b"no image", 0), ("null", None, 0)]
    score(tmp_path / "out", write_parquet(tmp_path / "in.parquet", data))  # type: ignore[arg-type]
    found = rows(tmp_path / "out") | rows(tmp_path / "out", "quarantine")
    for name, image, _ in data:
        expected = image and hashlib.blake2b(image, digest_size=16).hexdigest()
        assert found[name]["digest"] == expected


def test_the_footer_says_what_made_the_rows(tmp_path: Path) -> None:
    (record, *_) = score(tmp_path / "out", write_parquet(tmp_path / "in.parquet", digits(3)))
    (part,) = (tmp_path / "out/scores").iterdir()
    schema = pyarrow.parquet.read_schema(part)
    assert schema.equals(table.score_schema(SCORES))
    said = json.loads(schema.metadata[table.PROVENANCE_KEY])
    assert (said["unit"], said["identity"]) == (record["unit"], record["identity"])
    assert part.stat().st_size < 4000  # where the rows come from is written once, beside


def test_units_commit_while_later_ones_are_scored(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    before = set(threading.enumerate())
    scorer = UnitScorer(task(tmp_path / "out", unit_rows=5))
    results = scorer.score(units(source, unit_rows=5))
    next(results)
    committed = len(list((tmp_path / "out/ledger").glob("*.json")))
    assert 1 <= committed < 12
    results.close()
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith("regrad-")]


def test_it_tells_when_the_network_works(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    told: list[bool] = []
    settings = Task(**{**vars(task(tmp_path / "out")), "batch_size": 25})
    list(UnitScorer(settings, on_scoring=told.append).score(units(source, unit_rows=1000)))
    assert told == [True, False] * 3


@pytest.mark.parametrize("slow", ["reading", "decoding", "scoring", "committing"])
def test_it_tells_what_its_time_went_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    from regrad.ledger import commit
    from regrad.reading import decode
    from regrad.reading.parquet import ParquetReader

    owner, name = {
        "reading": (ParquetReader, "rows"),
        "decoding": (decode, "to_compact"),
        "scoring": (UnitScorer, "_columns"),
        "committing": (commit, "write_unit"),
    }[slow]
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *arguments: (time.sleep(0.5), real(*arguments))[1])
    source = write_parquet(tmp_path / "in.parquet", digits(3))
    scorer = UnitScorer(task(tmp_path / "out"))
    started = time.time()
    *others, spent = scorer.score(units(source, unit_rows=3))
    took = time.time() - started
    assert isinstance(spent, Spent)
    assert not any(isinstance(other, Spent) for other in others)
    assert max(spent.seconds, key=lambda step: spent.seconds[step]) == slow
    assert 0.5 <= spent.seconds[slow] <= sum(spent.seconds.values()) <= took + 0.01


def test_what_is_read_ahead_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regrad.reading import decode

    decoded = itertools.count()
    real = decode.to_compact
    monkeypatch.setattr(decode, "to_compact", lambda *arguments: (next(decoded), real(*arguments))[1])
    repeated = [(f"{row}", image, label) for row, (_, image, label) in enumerate(digits() * 10)]
    source = write_parquet(tmp_path / "in.parquet", repeated)
    release, entered = threading.Event(), threading.Event()
    scorer = UnitScorer(task(tmp_path / "out"))
    inner = scorer.scorer

    def slow(images: Tensor, ids: list[str], labels: list[int | None]) -> dict[str, Tensor]:
        entered.set()
        release.wait(20)
        return inner(images, ids, labels)

    scorer.scorer = slow  # type: ignore[assignment]
    thread = threading.Thread(target=lambda: list(scorer.score(units(source, unit_rows=1000))))
    thread.start()
    entered.wait(20)
    threading.Event().wait(0.5)
    ahead = next(decoded)
    release.set()
    thread.join()
    assert 16 < ahead <= 16 + 3 * 16 + 2


def test_what_waits_for_a_decoder_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from regrad.pipeline import worker
    from regrad.reading import decode

    lock, real = threading.Lock(), decode.to_compact
    alone = []

    def slow(*arguments: Any) -> Tensor:
        alone.append(lock.acquire(blocking=False))
        try:
            threading.Event().wait(0.01)
            return real(*arguments)
        finally:
            if alone[-1]:
                lock.release()

    monkeypatch.setattr(decode, "to_compact", slow)
    monkeypatch.setattr(worker, "_ENCODED_BYTES", 1)  # less than any image: each waits for the one before
    (record,) = score(tmp_path / "out", write_parquet(tmp_path / "in.parquet", digits(20)))
    assert record["rows_scored"] == 20
    assert all(alone)


def test_another_network_than_the_drivers_is_refused(tmp_path: Path) -> None:
    wrong = task(tmp_path / "out")
    with pytest.raises(RegradError, match="this worker loaded another network than the driver"):
        UnitScorer(Task(**{**vars(wrong), "fingerprint": "f" * 64}))


def test_a_network_that_breaks_fails_the_run_with_one_line(tmp_path: Path) -> None:
    scorer = UnitScorer(task(tmp_path / "out"))
    scorer.scorer = lambda images, ids, labels: torch.zeros(3) @ torch.zeros(4)  # type: ignore[assignment,return-value]
    with pytest.raises(RegradError, match=r"scoring a batch of \d+ images failed .*RuntimeError: "):
        list(scorer.score(units(write_parquet(tmp_path / "in.parquet", digits(5)))))


def test_a_trial_commits_nothing(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    count, seconds = UnitScorer(task(tmp_path / "out")).trial(units(source)[0], 8)
    assert count == 8
    assert seconds > 0
    assert not (tmp_path / "out").exists()
