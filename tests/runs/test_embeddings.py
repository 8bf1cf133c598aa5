"""An output that keeps what its network sees: the numbers, the rows they are of, and what becomes of both."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

from regrad import Classifier, Scorer, storage, table
from regrad.__main__ import main
from regrad.errors import UsageError
from regrad.ledger import fold, merge
from regrad.reading.decode import to_tensor
from regrad.runs import embeddings
from regrad.runs.embeddings import embedding_rows, sample_embeddings
from regrad.runs.scored import load_run
from tests.shards import digits, write_parquet

FLAGS = ("--model", "tests.shards:build", "--scores", "entropy", "--ray-address", "none", "--unit-rows", "8")
IMAGES = 40
BAD = ("--max-quarantined", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("embedded")
    write_parquet(folder / "in.parquet", [*digits(IMAGES), ("bad", b"no image", 1)])
    arguments = [*FLAGS, *BAD, "--embeddings", "--output", str(folder / "out")]
    assert main(["score", str(folder / "in.parquet"), *arguments]) == 0
    return str(folder / "out")


@pytest.fixture
def output(made: str, tmp_path: Path) -> str:
    return str(shutil.copytree(made, tmp_path / "out"))


@pytest.fixture(scope="module")
def seen() -> dict[str, np.ndarray[Any, Any]]:
    """What the last layer is given of each image, by the network's own modules."""
    classifier = Classifier.load("tests.shards:build")
    layers = list(classifier.network.children())
    assert isinstance(layers[-1], torch.nn.Linear)
    before = torch.nn.Sequential(*layers[:-1])
    pixels = torch.stack([to_tensor(image, classifier, 10**6) for _, image, _ in digits(IMAGES)])
    with torch.no_grad():
        return dict(
            zip(
                [name for name, *_ in digits(IMAGES)],
                before(classifier.normalize(pixels)).flatten(1).numpy(),
                strict=True,
            )
        )


def of(output: str) -> dict[str, np.ndarray[Any, Any]]:
    rows = list(embedding_rows(load_run("run", output)))
    named = [name for some in rows for name in some.known_by["id"].to_pylist()]
    assert len(named) == len(set(named))
    return dict(zip(named, np.concatenate([some.vectors for some in rows]), strict=True))


def test_they_are_what_the_last_layer_is_given(made: str, seen: dict[str, np.ndarray[Any, Any]]) -> None:
    held = of(made)
    assert held.keys() == seen.keys()
    for name, vector in held.items():
        assert vector.dtype == np.float16
        np.testing.assert_allclose(vector, seen[name], rtol=1e-3, atol=1e-6)


def test_scores_are_the_same_and_their_files_have_none(made: str, tmp_path: Path) -> None:
    plain = str(tmp_path / "plain")
    source = str(Path(made).parent / "in.parquet")
    assert main(["score", source, *FLAGS, *BAD, "--output", plain]) == 0
    assert table.read(made).sort_by("row").equals(table.read(plain).sort_by("row"))
    assert not (Path(plain) / "embeddings").exists()
    assert "embeddings" not in table.read_run(plain)["config"]  # as in outputs that are older than the setting
    with pytest.raises(UsageError, match="kept no embeddings; score it with --embeddings"):
        next(embedding_rows(load_run("run", plain)))


def test_whoever_reads_parquet_reads_them(made: str, seen: dict[str, np.ndarray[Any, Any]]) -> None:
    import duckdb  # a second, which a worker that does not run this need not wait
    import polars

    pattern = f"{made}/embeddings/*.parquet"
    frame = pandas.read_parquet(f"{made}/embeddings")
    ours = dict(zip(frame["id"], np.stack(frame["embedding"]), strict=True))
    theirs = dict(duckdb.sql(f"SELECT id, embedding FROM '{pattern}'").fetchall())
    lazily = dict(polars.scan_parquet(pattern).select("id", "embedding").collect().iter_rows())
    for found in (ours, theirs, lazily):
        assert found.keys() == seen.keys()
        for name, vector in found.items():
            np.testing.assert_allclose(np.array(vector, np.float32), seen[name], rtol=1e-3, atol=1e-6)
    (path, *_) = sorted(Path(made, "embeddings").iterdir())
    assert pyarrow.parquet.read_schema(path).field("embedding").type == pa.list_(pa.float16(), 128)


def test_they_are_merged_and_counted_as_scores_are(
    output: str, seen: dict[str, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = of(output)
    assert main(["check", output]) == 0
    assert main(["compact", output]) == 0
    assert [path.name[:6] for path in (Path(output) / "embeddings").iterdir()] == ["merged"]
    assert main(["check", output]) == 0
    monkeypatch.setattr(embeddings, "_ROWS", 7)  # a stream of several pieces
    assert {name: vector.tolist() for name, vector in of(output).items()} == {
        name: vector.tolist() for name, vector in before.items()
    }


def test_a_sample_is_of_some_images_whatever_files_they_are_in(
    output: str, seen: dict[str, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_run("run", output)
    rows = table.read(output).to_pylist()
    predictions = {tuple(seen[row["id"]].astype(np.float16)): row["prediction"] for row in rows}
    whole, some = sample_embeddings(run, 1000), sample_embeddings(run, 9)
    assert (len(whole.vectors), len(some.vectors), some.images) == (IMAGES, 9, IMAGES)
    assert some.vectors.tolist() == whole.vectors[:9].tolist()
    nearest = [min(predictions, key=lambda other: np.abs(np.subtract(other, own)).max()) for own in whole.vectors]
    assert len({*nearest}) == IMAGES
    assert whole.predictions.tolist() == [predictions[name] for name in nearest]
    assert main(["compact", output]) == 0
    monkeypatch.setattr(embeddings, "_ROWS", 7)
    again = sample_embeddings(run, 9)
    assert again.vectors.tolist() == some.vectors.tolist()
    assert again.predictions.tolist() == some.predictions.tolist()


def test_rows_that_do_not_count_have_none(made: str, seen: dict[str, np.ndarray[Any, Any]]) -> None:
    run = load_run("run", made)
    source = str(Path(made).parent / "in.parquet")
    less = dataclasses.replace(run, left_out={source: np.arange(0, 30)})
    held = [name for some in embedding_rows(less) for name in some.known_by["id"].to_pylist()]
    assert sorted(held) == sorted([*seen][30:])
    assert sum(len(some.vectors) for some in embedding_rows(less)) == sample_embeddings(less, 100).images == 10


def test_units_that_go_take_them_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "AT_LEAST", 2)
    monkeypatch.setattr(fold, "AT_LEAST", 1)
    source, output = tmp_path / "in.parquet", str(tmp_path / "out")
    command = ["score", write_parquet(source, digits(IMAGES)), *FLAGS, "--output", output]
    assert main([*command, "--embeddings"]) == 0
    merged = storage.list_files(storage.join(output, "embeddings"))
    assert [name[:6] for name in merged] == ["merged"]
    write_parquet(source, digits(16))
    assert main([*command, "--embeddings"]) == 0
    assert of(output).keys() == {name for name, *_ in digits(16)}
    assert not {*merged} & {*storage.list_files(storage.join(output, "embeddings"))}
    assert main(command) == 2
    assert main([*command, "--replace"]) == 0
    assert storage.list_files(storage.join(output, "embeddings")) == []
    assert main(["check", output]) == 0


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda path: path.unlink(), "no embeddings part, but 8 rows in the ledger"),
        (lambda path: path.write_bytes(path.read_bytes()[:900]), "its embeddings part is damaged"),
        (lambda path: _shuffled(path), "its embeddings are of other rows than its scores"),
    ],
)
def test_check_counts_them_and_they_are_scored_again(
    output: str, made: str, harm: Any, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = of(output)
    harm(sorted(Path(output, "embeddings").iterdir())[0])
    assert main(["check", output]) == 1
    assert told in capsys.readouterr().out
    assert main(["check", output, "--repair"]) == 0
    source = str(Path(made).parent / "in.parquet")
    assert main(["score", source, *FLAGS, *BAD, "--embeddings", "--output", output]) == 0
    assert main(["check", output]) == 0
    assert {name: vector.tolist() for name, vector in of(output).items()} == {
        name: vector.tolist() for name, vector in before.items()
    }


def _shuffled(path: Path) -> None:
    """The same rows, each under the number of another."""
    file = pyarrow.parquet.ParquetFile(path)
    rows = file.read()
    said = json.loads(file.metadata.metadata[table.PROVENANCE_KEY])
    place = rows.column_names.index("row")
    moved = rows.set_column(place, "row", pa.array(rows["row"].to_pylist()[::-1]))
    path.write_bytes(table.to_parquet(moved, said))


class Pooled(torch.nn.Module):
    """Its logits come from no Linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Conv2d(1, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).mean((2, 3))


def test_a_network_without_a_last_linear_layer_has_none() -> None:
    classifier = Classifier(Pooled(), image_size=8, channels=1)
    with pytest.raises(UsageError, match=r"^embeddings: made of .* the logits of Pooled come from none; do without$"):
        Scorer(classifier, scores=["entropy"], embeddings=True)


def test_numbers_beyond_float16_stay_finite() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4), torch.nn.Linear(4, 3))
    with torch.no_grad():
        network[1].weight.mul_(1e6)
        network[2].weight.mul_(1e-6)
    scorer = Scorer(Classifier(network, image_size=8, channels=1), scores=["entropy"], embeddings=True)
    images = torch.rand(5, 1, 8, 8)
    vectors = scorer(images, list("abcde"))["embedding"]
    assert vectors.shape == (5, scorer.embedding_width) == (5, 4)
    assert vectors.isfinite().all()
    assert vectors.abs().max() == 65504
    assert scorer(images[:0], [])["embedding"].shape == (0, 4)


def test_one_forward_pass_gives_scores_and_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier.load("tests.shards:build")
    scorer = Scorer(classifier, scores=["entropy"], embeddings=True)
    calls: list[int] = []
    scorer._network.register_forward_hook(lambda *_: calls.append(1))
    scorer(torch.rand(4, 1, *classifier.image_size), list("abcd"))
    assert calls == [1]
