"""The report job as it is called: files, exit codes, and one line per error."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from regrad.commands import report as job
from tests.services import Bucket

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)


@pytest.fixture
def runs(write_run: Any) -> dict[str, str]:
    return {
        "digits": write_run("digits", {"regrad": RNG.normal(0, 1, 30)}, labels=[row % 10 for row in range(30)]),
        "photos": write_run("photos", {"regrad": RNG.normal(2, 1, 20)}),
        "drawings": write_run("drawings", {"regrad": RNG.normal(1, 1, 10)}, labels=[658] * 10),
    }


def scores(run: str) -> np.ndarray:
    return pyarrow.parquet.read_table(f"{run}/scores", columns=["regrad"])["regrad"].to_numpy()


def test_report_json_and_page(runs: dict[str, str], tmp_path: Path, capsys: Any) -> None:
    sets = [f"photos={runs['photos']}", f"drawings={runs['drawings']}"]
    assert job.main(["--id", runs["digits"], "--ood", *sets, "--output", str(tmp_path / "out"), "--top", "3"]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    for name in ("photos", "drawings"):
        # The independent check: scikit-learn on what the Parquet files hold.
        known, unknown = scores(runs["digits"]), scores(runs[name])
        expected = roc_auc_score([0] * len(known) + [1] * len(unknown), np.r_[known, unknown])
        assert report["scores"]["regrad"]["ood"][name]["auroc"] == pytest.approx(expected, abs=1e-12)
    html = (tmp_path / "out/report.html").read_text()
    assert html.count("data:image/webp;base64,") == 9  # three pictures, read back from each run's shard
    assert "no picture" not in html
    assert json.loads((tmp_path / "out/threshold.json").read_text())["reference"] == runs["digits"]
    flags = pyarrow.parquet.read_table(tmp_path / "out/flags").to_pylist()
    value = report["threshold"]["value"]
    assert sum(row["set"] == "photos" for row in flags) == (scores(runs["photos"]) > value).sum()
    headline, page = capsys.readouterr().out.splitlines()
    assert headline == report["headline"][0]
    assert page == str(tmp_path / "out/report.html")


@pytest.mark.usefixtures("plain_maps")
def test_runs_with_embeddings_lie_on_a_map_and_the_page_of_others_is_as_it_was(
    write_run: Any, runs: dict[str, str], tmp_path: Path
) -> None:
    known, new = (
        write_run(name, {"regrad": RNG.normal(0, 1, 30)}, embeddings=RNG.normal(0, 1, (30, 4)))
        for name in ("known", "new")
    )
    arguments = ["--id", new, "--reference", known, "--ood", f"photos={runs['photos']}", "--top", "2"]
    assert job.main([*arguments, "--map-points", "40", "--output", str(tmp_path / "out")]) == 0
    told = json.loads((tmp_path / "out/report.json").read_text())["map"]
    sets = [(each["name"], each["images"], each["points"]) for each in told["sets"]]
    assert sets == [("in-distribution", 30, 20), ("reference", 30, 20)]
    assert told["without"] == ["photos"]
    html = (tmp_path / "out/report.html").read_text()
    points = json.loads(html.split('id="data">')[1].split("</script>")[0])["map"]
    assert len(points["x"]) == told["points"] == 40
    assert f"{len(points['pictures'])} of the points have a picture" in html
    assert "40 of 60 images" in html
    assert "photos</bdi> kept no embeddings" in html
    assert job.main([*arguments, "--no-thumbnails", "--output", str(tmp_path / "bare")]) == 0
    assert "of the points have a picture" not in (tmp_path / "bare/report.html").read_text()
    for more in (["--id", runs["digits"]], ["--id", new, "--map-points", "0"]):
        assert job.main([*more, "--output", str(tmp_path / "plain")]) == 0
        assert json.loads((tmp_path / "plain/report.json").read_text())["map"] is None
        plain = (tmp_path / "plain/report.html").read_text()
        assert 'id="map"' not in plain
        assert "showMap" not in plain
        assert "map" not in json.loads(plain.split('id="data">')[1].split("</script>")[0])


def test_ood_sets_may_be_given_one_by_one(runs: dict[str, str], tmp_path: Path) -> None:
    sets = ["--ood", f"photos={runs['photos']}", "--ood", f"drawings={runs['drawings']}"]
    assert job.main(["--id", runs["digits"], *sets, "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [run["name"] for run in report["ood"]] == ["photos", "drawings"]


def test_a_shard_that_has_gone_costs_its_pictures_only(runs: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "photos.parquet").unlink()
    arguments = ["--id", runs["digits"], "--ood", f"photos={runs['photos']}", "--output", str(tmp_path / "out")]
    assert job.main([*arguments, "--top", "5"]) == 0
    html = (tmp_path / "out/report.html").read_text()
    assert html.count("data:image/webp;base64,") == 5
    assert html.count("no picture:") == 5


def test_images_are_read_from_the_column_of_the_run(write_run: Any, tmp_path: Path) -> None:
    config = {"config": {"image_column": "picture", "label_column": None, "id_column": None}}
    run = write_run("digits", {"regrad": RNG.normal(0, 1, 9)}, **config)
    shard = tmp_path / "digits.parquet"
    rows = pyarrow.parquet.read_table(shard)
    renamed = pyarrow.table({"picture": rows["image"], "image": [b"not this one"] * 9})
    pyarrow.parquet.write_table(renamed, shard)
    assert job.main(["--id", run, "--output", str(tmp_path / "out"), "--top", "2"]) == 0
    assert (tmp_path / "out/report.html").read_text().count("data:image/webp;base64,") == 2


def test_a_threshold_is_chosen_on_a_reference_and_used_again(runs: dict[str, str], tmp_path: Path) -> None:
    first = ["--id", runs["photos"], "--reference", runs["digits"], "--threshold", "quantile=0.9", "--no-thumbnails"]
    assert job.main([*first, "--output", str(tmp_path / "first")]) == 0
    stored = str(tmp_path / "first/threshold.json")
    again = ["--id", runs["photos"], "--threshold", stored, "--output", str(tmp_path / "again"), "--no-thumbnails"]
    assert job.main(again) == 0
    made = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("first", "again")]
    assert made[0]["threshold"] == made[1]["threshold"]
    assert made[0]["threshold"]["value"] == np.sort(scores(runs["digits"]))[-4]
    rates = [report["rates"]["in-distribution"]["flagged"] for report in made]
    assert rates[0] == rates[1] == (scores(runs["photos"]) > made[0]["threshold"]["value"]).sum()
    for name in ("first", "again"):
        assert "data:image/webp" not in (tmp_path / name / "report.html").read_text()
        assert pyarrow.parquet.read_table(tmp_path / name / "flags").num_rows == rates[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: --output"),
        (["--output", "y"], "one of the arguments --id --compare is required"),
        (["--id", "x", "--compare", "a", "b", "--output", "y"], "not allowed with argument"),
        (["--compare", "a", "b", "--reference", "x", "--output", "y"], "--reference does not go with --compare"),
        (
            ["--compare", "a", "b", "--ood", "x=s3://k:s@one", "--output", "y"],
            "--ood x=s3://***@one: a comparison needs",
        ),
        (["--compare", "nowhere", "b", "--output", "y"], "nowhere: no run.json here"),
        (["--id", "x", "--output", "y", "--thumbnail-seconds", "0"], "'0' is not a number above 0"),
        (["--id", "x", "--output", "y", "--ood", "photos"], "'photos' is not NAME=URI"),
        (["--id", "x", "--output", "y", "--top", "-1"], "'-1' is not a whole number"),
        (["--id", "x", "--output", "y", "--tip", "1"], "unrecognized arguments: --tip"),
        (["--id", "x", "--output", "y", "--threshold", "quantile=2"], "between 0 and 1, such as quantile=0.95"),
        (["--id", "x", "--output", "y", "--threshold", "high"], "give quantile=0.95, a value of the score"),
        (["--id", "nowhere", "--output", "y"], "nowhere: no run.json here"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    arguments: list[str], message: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert job.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


def test_two_runs_side_by_side(write_run: Any, tmp_path: Path, capsys: Any) -> None:
    labels, first = [row % 10 for row in range(60)], RNG.normal(0, 1, 60)
    second = first + RNG.normal(0, 0.1, 60)
    a = write_run("digits", {"regrad": first}, labels=labels)
    b = write_run("digits", {"regrad": second}, labels=labels, folder="after")
    oods = [write_run("photos", {"regrad": RNG.normal(2, 1, 40)}, folder=f"photos-{side}") for side in "ab"]
    arguments = ["--compare", a, b, "--ood", f"photos={oods[0]},{oods[1]}", "--output", str(tmp_path / "out")]
    assert job.main([*arguments, "--top", "6"]) == 0
    report = json.loads((tmp_path / "out/compare.json").read_text())
    separation = report["ood"]["photos"]["scores"]["regrad"]
    for side, run, ood in zip("ab", (a, b), oods, strict=True):
        # The independent check: scikit-learn on what the Parquet files hold.
        known, unknown = scores(run), scores(ood)
        expected = roc_auc_score([0] * len(known) + [1] * len(unknown), np.r_[known, unknown])
        assert separation[side] == pytest.approx(expected, abs=1e-12)
    expected = scipy.stats.spearmanr(first, second).statistic
    assert report["scores"]["regrad"]["rank_correlation"]["value"] == pytest.approx(expected)
    html = (tmp_path / "out/compare.html").read_text()
    assert html.count("data:image/webp;base64,") == 6
    assert "no picture" not in html
    headline, page = capsys.readouterr().out.splitlines()
    assert headline == report["headline"][0]
    assert page == str(tmp_path / "out/compare.html")
    assert job.main([*arguments, "--no-thumbnails"]) == 0
    assert "data:image/webp" not in (tmp_path / "out/compare.html").read_text()


def test_runs_in_a_bucket_are_compared_there(write_run: Any, bucket: Bucket, tmp_path: Path, capsys: Any) -> None:
    values = RNG.normal(0, 1, 30)
    a, b = (write_run("digits", {"regrad": values + side}, folder=f"run-{side}") for side in (0, 1))
    output = f"{bucket.uri}/report"
    assert job.main(["--compare", bucket.put(a, "a"), bucket.put(b, "b"), "--output", output]) == 0
    report = json.loads((bucket.folder / "report/compare.json").read_text())
    assert report["scores"]["regrad"]["difference"]["mean"]["value"] == pytest.approx(1)
    assert report["settings"] == []
    assert capsys.readouterr().out.splitlines()[1] == f"{output}/compare.html"


def test_runs_that_share_nothing_are_refused(runs: dict[str, str], write_run: Any, capsys: Any) -> None:
    other = write_run("other", {"entropy": RNG.normal(0, 1, 30)})
    assert job.main(["--compare", runs["digits"], other, "--output", "out"]) == 2
    assert "has the scores regrad" in capsys.readouterr().err
    assert job.main(["--compare", runs["digits"], runs["photos"], "--output", "out"]) == 2
    assert "no image is in both; rows are paired by source and id" in capsys.readouterr().err


def test_unreadable_scores_are_code_1(runs: dict[str, str], tmp_path: Path, capsys: Any) -> None:
    Path(runs["photos"], "scores/part-1.parquet").write_bytes(b"PAR1 no")
    arguments = ["--id", runs["digits"], "--ood", f"photos={runs['photos']}", "--output", str(tmp_path / "out")]
    assert job.main(arguments) == 1
    quiet = capsys.readouterr().err
    assert quiet.startswith("error: ")
    assert "photos/scores: cannot read" in quiet
    assert quiet.count("\n") == 1
    assert job.main([*arguments, "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_script_exits_with_the_code_of_main(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "regrad", "report", "--id", str(tmp_path), "--output", str(tmp_path / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_a_store_that_hangs_holds_up_neither_the_report_nor_its_end(write_run: Any, tmp_path: Path) -> None:
    """The images lie in a bucket whose server takes connections and never answers."""
    known = write_run("digits", {"regrad": RNG.normal(0, 1, 9)})
    for part in Path(known, "scores").iterdir():
        rows = pyarrow.parquet.read_table(part)
        sources = pyarrow.array([f"s3://bucket/shard-{row % 2}.tar" for row in range(len(rows))])
        rows = rows.set_column(rows.schema.get_field_index("source"), "source", sources)
        pyarrow.parquet.write_table(rows.set_column(2, "row", pyarrow.array(range(len(rows)), pyarrow.int64())), part)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "AWS_REGION": "us-east-1"}
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        command = [
            sys.executable,
            "-m",
            "regrad",
            "report",
            "--id",
            known,
            "--output",
            str(tmp_path / "out"),
            "--top",
            "4",
        ]
        result = subprocess.run(
            [*command, "--thumbnail-seconds", "3"],
            cwd=ROOT,
            env={**os.environ, **store, **keys},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    html = (tmp_path / "out/report.html").read_text()
    assert html.count("no picture: not fetched in time") == 4
    assert "4 pictures had not arrived when the time for fetching pictures was over" in html
