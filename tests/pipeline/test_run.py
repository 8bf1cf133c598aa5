"""Runs on one output, one after the other, without Ray: what is redone, what is kept, what is refused."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.torch

from regrad import storage, table
from regrad.commands.score import summary
from regrad.errors import RegradError, UsageError
from regrad.ledger import commit, contents
from regrad.pipeline import manifest
from regrad.pipeline.check import check as checks
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import Job, describe, expected_images, prepare
from regrad.pipeline.results import Committed, Note, Spent, UnitResult
from regrad.pipeline.run import RunOutcome, execute, score_here
from regrad.scores import registry
from tests.services import Bucket
from tests.shards import build, digits, write_folder, write_members, write_parquet, write_tar
from tests.storage.plain import PlainFileSystem

ARGUMENTS = ("--model", "tests.shards:build", "--scores", "entropy", "--unit-rows", "25")


def job(output: Any, *arguments: Any) -> Job:
    return prepare(parse([*ARGUMENTS, "--output", str(output), *map(str, arguments)], "score", None))


def score(output: Any, *arguments: Any) -> RunOutcome:
    return execute(job(output, *arguments), score_here)


def rows(output: Any) -> list[tuple[str, int]]:
    return sorted((row["source"], row["row"]) for row in table.read(str(output)).to_pylist())


def run_json(output: Path) -> dict[str, Any]:
    return json.loads((output / "run.json").read_text())


def checked(output: Path) -> dict[str, Any]:
    """``run.json``, after making sure that its counts are those of the ledger and of the parts."""
    content = run_json(output)
    counts = manifest.totals(contents.read_records(str(output), contents.committed(str(output))))
    assert {name: content["counts"][name] for name in counts} == counts
    held = 0 if not counts["rows_scored"] else table.read(str(output)).num_rows
    assert held == counts["rows_scored"]
    return content


def test_a_second_run_scores_nothing(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    assert score(tmp_path / "out", source).this_run["rows_scored"] == 60
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*")}
    outcome = execute(job(tmp_path / "out", source), lambda job: pytest.fail("scored again"))
    assert (outcome.exit_code, outcome.this_run["rows_in"], outcome.counts["rows_scored"]) == (0, 0, 60)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("part-*")} == before
    assert checked(tmp_path / "out")["status"] == "done"


def test_what_a_worker_left_that_died_goes_with_the_run(tmp_path: Path) -> None:
    output = tmp_path / "out"

    def dying(job: Job) -> Iterator[UnitResult]:
        for result in score_here(job):
            for folder in ("scores", "ledger"):
                (output / folder / f"{storage.TEMPORARY_PREFIX}1-part").write_bytes(b"half")
            (output / "scores" / "part-0123456789abcdef.parquet").write_bytes(b"no record of it")
            yield result

    execute(job(output, write_parquet(tmp_path / "in.parquet", digits())), dying)
    assert commit.left_over(str(output), contents.committed(str(output))) == []
    assert checked(output)["counts"]["rows_scored"] == 60


def test_a_second_run_reads_no_ledger_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    score(tmp_path / "out", source)
    monkeypatch.setattr(contents, "read_record", lambda output, key: pytest.fail(f"read {key}"))
    assert score(tmp_path / "out", source).counts["rows_scored"] == 60


def test_a_changed_shard_is_scored_again_and_its_old_rows_go(tmp_path: Path) -> None:
    first = write_parquet(tmp_path / "a.parquet", digits())
    second = write_parquet(tmp_path / "b.parquet", digits(30))
    score(tmp_path / "out", tmp_path / "*.parquet")
    write_parquet(tmp_path / "a.parquet", digits(40))
    outcome = score(tmp_path / "out", tmp_path / "*.parquet")
    assert outcome.this_run["rows_scored"] == 40
    assert rows(tmp_path / "out") == [(first, row) for row in range(40)] + [(second, row) for row in range(30)]
    checked(tmp_path / "out")


def test_another_configuration_is_refused_by_name(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    score(tmp_path / "out", source)
    before = run_json(tmp_path / "out")
    with pytest.raises(UsageError, match=r"out: holds .*: sigma 0.02, now 0.05; depth-decay 0.3, now inf; use another"):
        job(tmp_path / "out", source, "--sigma", "0.05", "--depth-decay", "inf")
    with pytest.raises(UsageError, match="scores entropy, now regrad"):
        prepare(parse([source, "--output", str(tmp_path / "out"), *ARGUMENTS, "--scores", "regrad"], "", None))
    with pytest.raises(UsageError, match=r"another configuration: mean None, now 0\.5; use"):
        job(tmp_path / "out", source, "--mean", "0.5")
    with pytest.raises(UsageError, match=r"transform None, now tests\.shards:invert"):
        job(tmp_path / "out", source, "--transform", "tests.shards:invert")
    assert run_json(tmp_path / "out") == before
    job(tmp_path / "out", source, "--batch-size", "3", "--limit", "7", "--num-workers", "5", "--max-quarantined", "9")


def test_changed_weights_are_refused_and_replaced_when_asked(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    weights = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(build(seed=1)[0].state_dict(), weights)
    score(tmp_path / "out", source, "--weights", weights)
    old = table.read(str(tmp_path / "out"))
    safetensors.torch.save_file(build(seed=2)[0].state_dict(), weights)
    with pytest.raises(UsageError, match=r"the model's content \(fingerprint .{12}, now .{12}\)"):
        job(tmp_path / "out", source, "--weights", weights)
    outcome = score(tmp_path / "out", source, "--weights", weights, "--replace")
    assert (outcome.this_run["rows_scored"], outcome.counts["rows_scored"]) == (60, 60)
    new = table.read(str(tmp_path / "out"))
    assert new.num_rows == 60
    assert new["entropy"] != old["entropy"]
    assert checked(tmp_path / "out")["counts"]["units"] == 3


def test_replacing_leaves_no_row_of_the_old_configuration(tmp_path: Path) -> None:
    for name in "ab":
        write_parquet(tmp_path / f"{name}.parquet", digits(30))
    score(tmp_path / "out", tmp_path / "*.parquet")
    outcome = score(tmp_path / "out", tmp_path / "a.parquet", "--sigma", "0.05", "--replace")
    assert outcome.counts["rows_scored"] == 30
    assert rows(tmp_path / "out") == [(str(tmp_path / "a.parquet"), row) for row in range(30)]
    assert checked(tmp_path / "out")["config"]["sigma"] == 0.05


def test_a_units_key_depends_on_all_that_its_scores_depend_on() -> None:
    def salt(*arguments: str, fingerprint: str = "f", first_layer: int = 1, why: str = "") -> str:
        options = parse(["a.tar", "--output", "o", *ARGUMENTS, *arguments], "", None)
        return manifest.salt(
            fingerprint, manifest.configuration(options), {"engine": "exact", "first_layer": first_layer, "why": why}
        )

    assert salt("--batch-size", "3", "--limit", "9", "--mean", "0.5", why="measured 0.1") == salt()
    changes = [("--sigma", "0.1"), ("--samples", "3"), ("--max-pixels", "9"), ("--label-column", "x")]
    found = {salt(), salt(fingerprint="g"), salt(first_layer=2), *(salt(*change) for change in changes)}
    assert len(found) == 3 + len(changes)


def test_the_same_weights_under_another_name_are_the_same_model(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(5))
    for name in ("a", "b"):
        safetensors.torch.save_file(build()[0].state_dict(), tmp_path / f"{name}.safetensors")
    score(tmp_path / "out", source, "--weights", tmp_path / "a.safetensors")
    assert score(tmp_path / "out", source, "--weights", tmp_path / "b.safetensors").this_run["rows_in"] == 0


def test_limits_then_all_leave_every_row_once(tmp_path: Path) -> None:
    sources = [write_tar(tmp_path / "a.tar", digits(30)), write_parquet(tmp_path / "b.parquet", digits())]
    sources.append(write_folder(tmp_path / "c", digits(40)))
    everything = [(source, row) for source, count in zip(sources, (30, 60, 40), strict=True) for row in range(count)]
    for limit in (12, 7, 36, 100, None, 50):
        score(tmp_path / "out", *sources, *(["--limit", limit] if limit else []))
        content = checked(tmp_path / "out")
        assert len(rows(tmp_path / "out")) == content["counts"]["rows_in"]
    assert rows(tmp_path / "out") == everything


def test_inputs_that_are_not_named_keep_their_rows(tmp_path: Path) -> None:
    for name in "ab":
        write_parquet(tmp_path / f"{name}.parquet", digits(30))
    score(tmp_path / "out", tmp_path / "a.parquet")
    outcome = score(tmp_path / "out", tmp_path / "b.parquet")
    assert (outcome.this_run["rows_scored"], outcome.counts["rows_scored"]) == (30, 60)
    checked(tmp_path / "out")


def test_a_run_that_breaks_is_continued(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())

    def breaking(job: Job) -> Iterator[UnitResult]:
        committed = 0
        for result in score_here(job):
            committed += isinstance(result, Committed)
            if committed == 2:
                raise RegradError("the power went out")
            yield result

    with pytest.raises(RegradError):
        execute(job(tmp_path / "out", source), breaking)
    content = checked(tmp_path / "out")
    assert (content["status"], content["exit_code"]) == ("failed", 1)
    done = content["counts"]["rows_in"]
    assert done >= 50  # with the unit whose record never reached the driver
    (tmp_path / "out/scores" / f"part-{'f' * 32}.parquet").write_bytes(b"rest of an attempt with another key")
    outcome = score(tmp_path / "out", source)
    assert outcome.this_run["rows_in"] == 60 - done
    assert rows(tmp_path / "out") == [(source, row) for row in range(60)]
    assert checked(tmp_path / "out")["status"] == "done"


def test_counts_are_right_after_a_run_that_was_killed(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    score(tmp_path / "out", source)
    content = run_json(tmp_path / "out")
    del content["counts"]  # as it is while a run goes on
    (tmp_path / "out/run.json").write_text(json.dumps(content | {"status": "running"}))
    assert score(tmp_path / "out", source).counts["rows_scored"] == 60
    checked(tmp_path / "out")


@pytest.mark.parametrize(
    ("limit", "code"), [(None, 4), ("2", 4), ("3", 0), ("4%", 4), ("5%", 0), ("4.76%", 4), ("100%", 0)]
)
def test_too_many_quarantined_rows_are_exit_code_4(tmp_path: Path, limit: str | None, code: int) -> None:
    bad = [(f"bad-{row}", b"no image", 0) for row in range(3)]
    source = write_parquet(tmp_path / "in.parquet", [*digits(), *bad])
    arguments = ["--max-quarantined", limit] if limit else []
    assert score(tmp_path / "out", source, *arguments).exit_code == code
    assert score(tmp_path / "out", source, *arguments).exit_code == code  # nothing is new, and the rows are still bad
    assert checked(tmp_path / "out")["exit_code"] == code


def test_run_json_says_what_ran(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    score(tmp_path / "out", source)
    content = checked(tmp_path / "out")
    assert content["schema_version"] == table.SCHEMA_VERSION
    assert content["inputs"] == [source]
    assert content["config"]["sigma"] == 0.02
    assert content["model"].items() >= {"spec": "tests.shards:build", "classes": 10, "class_names": None}.items()
    assert len(content["model"]["fingerprint"]) == 64
    assert content["versions"].keys() >= {"python", "torch", "pillow"}
    assert 0 < content["counts"]["accuracy"] < 1
    assert content["this_run"]["seconds"] > 0
    spent = content["this_run"]["worker_seconds"]
    assert {"reading", "decoding", "scoring", "committing"} <= spent.keys()
    assert 0 < sum(spent.values()) < content["this_run"]["seconds"]  # of one worker
    assert content["this_run"]["images_by_node"] == {socket.gethostname(): 60}


def test_an_output_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(5))
    score(tmp_path / "out", source)
    (tmp_path / "out/run.json").write_text(json.dumps(run_json(tmp_path / "out") | {"schema_version": 99}))
    with pytest.raises(UsageError, match="holds a run of schema version 99"):
        job(tmp_path / "out", source)


def test_units_without_a_run_json_are_refused(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(5))
    score(tmp_path / "out", source)
    (tmp_path / "out/run.json").unlink()
    with pytest.raises(UsageError, match=r"holds units but no run\.json"):
        job(tmp_path / "out", source)


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_without_images_are_refused(tmp_path: Path, kind: str) -> None:
    source = (write_tar if kind == "tar" else write_parquet)(tmp_path / f"a.{kind}", digits(1))
    if kind == "tar":
        write_tar(Path(source), [])
    else:
        pyarrow_empty(Path(source))
    with pytest.raises(UsageError, match=f"a.{kind}: no image in the input"):
        job(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


def pyarrow_empty(path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, 0), path)


def test_an_output_that_cannot_be_written_fails_before_scoring(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(5))
    (tmp_path / "out").write_text("a file is in the way")
    with pytest.raises(RegradError, match="out"):
        execute(job(tmp_path / "out", source), lambda job: pytest.fail("scored"))


def test_s3_to_s3(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put(write_tar(tmp_path / "a.tar", digits(30)), "in/a.tar")
    bucket.put(write_parquet(tmp_path / "b.parquet", digits()), "in/b.parquet")
    bucket.put(write_folder(tmp_path / "images", digits(20)), "images")
    output = f"{bucket.uri}/out"
    assert score(output, f"{bucket.uri}/in", f"{bucket.uri}/images").this_run["rows_scored"] == 110
    assert len(rows(output)) == 110
    assert score(output, f"{bucket.uri}/in", f"{bucket.uri}/images").this_run["rows_in"] == 0
    bucket.put(write_tar(tmp_path / "a.tar", digits(10)), "in/a.tar")
    assert score(output, f"{bucket.uri}/in", f"{bucket.uri}/images").this_run["rows_scored"] == 10
    assert len(rows(output)) == 90
    assert "tests-secret" not in subprocess.check_output(["cat", *bucket.folder.rglob("*.json")], text=True)


def test_estimates_count_images(tmp_path: Path) -> None:
    for name in "abcdefghijkl":
        write_tar(tmp_path / f"{name}.tar", digits(40))
    write_parquet(tmp_path / "z.parquet", digits(50))
    pending = job(tmp_path / "out", tmp_path / "*.*").plan.pending
    about, exact = expected_images(pending, thorough=True)
    assert not exact
    assert about == pytest.approx(12 * 40 + 50, rel=0.15)
    assert expected_images(pending[:3], thorough=True) == (120, True)
    assert expected_images(pending[-2:]) == (50, True)
    text = describe(job(tmp_path / "out", tmp_path / "[ab].tar"))
    assert "units      2 to score, 0 done" in text
    assert "images     80 to score" in text
    assert "images/s on a batch of 16" in text
    assert not (tmp_path / "out").exists()


def test_the_plan_that_was_resolved_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(30))
    arguments = (source, "--output", str(tmp_path / "out"), *ARGUMENTS, "--scores", "regrad", "--samples", "1")
    first = prepare(parse(arguments, "", None))
    execute(first, score_here)
    stored = run_json(tmp_path / "out")
    stored["plan"]["why"] = "kept"
    storage.write_atomically(str(tmp_path / "out/run.json"), json.dumps(stored).encode())
    second = prepare(parse(arguments, "", None))
    assert second.scorer.plan["why"] == "kept"
    assert second.plan.pending == ()


def test_the_error_of_the_gradients_is_measured_once(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    arguments = (source, "--scores", "regrad", "--samples", "1")

    def parsed(*more: str) -> Job:
        return prepare(
            parse([*map(str, arguments), "--output", str(tmp_path / "out"), *ARGUMENTS[:2], *more], "", None)
        )

    measured = execute(parsed("--limit", "30"), score_here).measured
    assert measured is not None
    assert measured["images"] == 4
    assert 0 < measured["median_relative_error"] <= measured["max_relative_error"] < 2e-3
    assert run_json(tmp_path / "out")["measured"] == measured
    results: list[UnitResult] = []

    def noted(ready: Job) -> Iterator[UnitResult]:
        for result in score_here(ready):
            results.append(result)
            yield result

    again = parsed()
    execute(again, noted)
    assert again.run["measured"] == measured
    assert results
    assert all(isinstance(result, Committed | Spent) for result in results)


def test_a_line_that_workers_say_is_kept_once(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())

    def noting(ready: Job) -> Iterator[UnitResult]:
        yield Note("memory is short")
        yield from score_here(ready)
        yield Note("memory is short")

    assert execute(job(tmp_path / "out", source), noting).notes == ["memory is short"]


def test_what_was_assumed_of_a_model_is_in_the_output_and_in_run_json(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    arguments = ["--model", "tests.shards:one_logit", "--scores", "entropy", "--samples", "0"]
    options = parse([source, "--output", str(tmp_path / "out"), *arguments], "score", None)
    note = "tests.shards:one_logit returns one number an image: taken for the logit of class 1 of two, p = sigmoid(z)"
    assert f"assumed    {note}" in describe(prepare(options))
    outcome = execute(prepare(options), score_here)
    assert outcome.notes == [note]
    assert f"warning: {note}" in summary(outcome)
    assert checked(tmp_path / "out")["model"]["notes"] == [note]
    scored = table.read(str(tmp_path / "out")).to_pylist()
    assert all(0.5 <= row["confidence"] < 1 and row["entropy"] > 0 for row in scored)
    assert {row["prediction"] for row in scored} <= {0, 1}


def test_a_score_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_scores.py").write_text(
        "from regrad.scores import score\n\n"
        "@score()\n"
        "def second_logit(inputs):\n"
        '    """The second largest logit."""\n'
        "    return inputs.logits.topk(2).values[:, 1]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "SCORES", dict(registry.SCORES))
    source = write_parquet(tmp_path / "in.parquet", digits(20))
    arguments = ["--scores", "second_logit,max_logit", "--score-module", "their_scores", *ARGUMENTS[:2]]
    ready = prepare(parse([source, "--output", str(tmp_path / "out"), *arguments], "", None))
    assert execute(ready, score_here).exit_code == 0
    found = table.read(str(tmp_path / "out"))
    assert all(-a >= b for a, b in zip(found["max_logit"].to_pylist(), found["second_logit"].to_pylist(), strict=True))
    assert run_json(tmp_path / "out")["config"]["score_module"] == ["their_scores"]


PHONE = ("1.png", "2.heic", "3.HEIC", "4.heif", "5.jxl", "6.jp2", "7.dng")


def phone(path: Path) -> str:
    """A folder of a telephone's pictures, of which one is decoded without plugins, and files that are none."""
    path.mkdir()
    for name in PHONE:
        (path / name).write_bytes(digits()[0][1] if name == "1.png" else b"\0\0\0\x18ftypheic" + bytes(200))
    for name in ("notes.txt", "Thumbs.db", "more.txt"):
        (path / name).write_text("words")
    return str(path)


def test_every_file_of_a_folder_and_member_of_a_tar_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where the plugins are not installed
    folder = phone(tmp_path / "phone")
    write_members(tmp_path / "in/a.tar", [(path.name, path.read_bytes()) for path in sorted(Path(folder).iterdir())])
    skipped = {"type not read: .txt": 2, "left by a desktop or an archiver": 1}
    for name, given in (("folder", folder), ("tar", tmp_path / "in")):
        outcome = score(tmp_path / name, given)
        content = checked(tmp_path / name)
        assert (outcome.counts["rows_scored"], outcome.counts["rows_quarantined"]) == (1, 6)
        assert outcome.skipped == content["skipped"] == skipped
        assert "left out 3: 2 type not read: .txt, 1 left by a desktop or an archiver" in summary(outcome)
        assert "left out   3: 2 type not read: .txt" in describe(job(tmp_path / name, given))
        assert checks(str(tmp_path / name)).problems == []
        bad = table.read(str(tmp_path / name), kind="quarantine").to_pylist()
        assert {row["stage"] for row in bad} == {"decode"}
        told = {Path(row["id"]).stem: row["reason"] for row in bad}
        assert all("install regrad[heif]" in told[stem] for stem in "2345")
        assert "JPEG 2000 pictures are not decoded here: convert" in told["6"]
        assert "camera RAW pictures are not decoded here: convert" in told["7"]


def test_what_was_left_out_is_counted_over_all_runs(tmp_path: Path) -> None:
    for name in "ab":
        write_members(tmp_path / f"in/{name}.tar", [("1.png", digits()[0][1]), ("1.txt", b"x"), ("2.txt", b"x")])
        score(tmp_path / "out", tmp_path / "in")
    (tmp_path / "in/a.tar").unlink()
    assert checked(tmp_path / "out")["skipped"] == {"type not read: .txt": 4}
    write_members(tmp_path / "in/b.tar", [("1.png", digits()[0][1])])
    (tmp_path / "in/README").write_text("words")
    score(tmp_path / "out", tmp_path / "in")
    assert checked(tmp_path / "out")["skipped"] == {"type not read: .txt": 2, "no extension": 1}


NAMED = ("--model", "tests.shards:build_named")


def labels(output: Path) -> dict[str, int | None]:
    return {row["id"]: row["label"] for row in table.read(str(output)).to_pylist()}


def test_sub_folders_are_labels_by_the_names_of_the_model_s_classes(tmp_path: Path) -> None:
    pictures = {
        name: image for name, (_, image, _) in zip(("Seven/1.png", "two/1.png", "cow/1.png"), digits(), strict=False)
    }
    folder = write_folder(tmp_path / "in", [(name, image, 0) for name, image in pictures.items()])
    outcome = score(tmp_path / "out", folder, *NAMED)
    assert labels(tmp_path / "out") == {"Seven/1.png": 7, "two/1.png": 2, "cow/1.png": None}
    told = f"{folder}: labels are the names of its sub-folders, 2 of which are classes of the model; cow gives none"
    assert checked(tmp_path / "out")["labels"] == [told]
    assert told in summary(outcome)
    assert told in describe(job(tmp_path / "out", folder, *NAMED))
    assert outcome.counts["labelled"] == 2
    assert checks(str(tmp_path / "out")).notes == []  # which plans with the same labels
    assert score(tmp_path / "out", folder, *NAMED).this_run["rows_in"] == 0


def test_splits_and_days_are_no_classes(tmp_path: Path) -> None:
    split = write_folder(tmp_path / "a", [(f"{name}/0.png", digits()[0][1], 0) for name in ("train/cat", "val/dog")])
    days = write_folder(tmp_path / "b", [(f"2026-11-{day}/0.png", digits()[0][1], 0) for day in range(10, 20)])
    outcome = score(tmp_path / "out", split, days)
    assert set(labels(tmp_path / "out").values()) == {None}
    assert outcome.counts["accuracy"] is None
    assert all("no labels: " in line for line in checked(tmp_path / "out")["labels"])
    assert [line.partition(": ")[0] for line in checked(tmp_path / "out")["labels"]] == [split, days]


def test_other_folders_give_other_labels_and_are_scored_anew(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", digits(30))
    assert score(tmp_path / "out", folder).counts["labelled"] == 30  # ten sub-folders, ten classes without names
    (tmp_path / "in/more").mkdir()
    (tmp_path / "in/more/1.png").write_bytes(digits()[0][1])
    outcome = score(tmp_path / "out", folder)
    assert (outcome.counts["rows_scored"], outcome.counts["labelled"]) == (31, 0)
    assert "11 sub-folders" in checked(tmp_path / "out")["labels"][0]


def test_labels_of_any_type_cost_no_row(tmp_path: Path) -> None:
    images = [image for _, image, _ in digits(4)]
    columns = [
        pa.array([0, 1, 2, 77]),
        pa.array([3.0, None, 1.5, 0.0]),
        pa.nulls(4),
        pa.array(["seven", "3", "cow", None]),
        pa.array(["two", "one", "two", "one"]).dictionary_encode(),
        pa.array([True, False, None, True]),
        pa.array([[1], [], None, [2]]),
    ]
    (tmp_path / "in").mkdir()
    for number, column in enumerate(columns):
        pa.parquet.write_table(pa.table({"image": images, "label": column}), tmp_path / f"in/{number}.parquet")
    pa.parquet.write_table(pa.table({"image": images}), tmp_path / "in/9.parquet")
    for more in ((), ("--label-column", "label")):
        output = tmp_path / f"out{len(more)}"
        outcome = score(output, tmp_path / "in", *NAMED, *more)
        found: dict[str, list[int | None]] = {}
        for row in sorted(table.read(str(output)).to_pylist(), key=lambda row: (row["source"], row["row"])):
            found.setdefault(Path(row["source"]).stem, []).append(row["label"])
        assert list(found.values()) == [
            [0, 1, 2, 77],
            [3, None, None, 0],
            [None] * 4,
            [7, 3, None, None],
            [2, 1, 2, 1],
            [None] * 4,
            [None] * 4,
            [None] * 4,
        ]
        assert (outcome.exit_code, outcome.counts["labelled"]) == (0, 11)
        assert outcome.counts["labels_outside"] == 1 + 1 + 1 + 3 + 3  # 77, 1.5, cow, the truth values, the lists
        assert "9 labels are outside the model's 10 classes" in summary(outcome)
        assert checks(str(output)).problems == []
    told = "--label-column label: 1 of 8 sources have no such column, and no labels"
    assert checked(tmp_path / "out2")["labels"] == [told]
    with pytest.raises(UsageError, match=r"0\.parquet: no column 'kind' for --label-column; the columns are image"):
        job(tmp_path / "out3", tmp_path / "in", "--label-column", "kind")


def test_the_class_names_of_a_dataset_are_the_model_s(tmp_path: Path) -> None:
    names = ["nine", "eight", "cow"]
    feature = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {
        "hub": {b"huggingface": json.dumps({"info": {"features": feature}}).encode()},
        "map": {b"id2label": json.dumps(dict(enumerate(names))).encode()},
    }
    (tmp_path / "in").mkdir()
    for name, told in metadata.items():
        shard = pa.table({"image": [image for _, image, _ in digits(5)], "label": [0, 1, 2, -1, None]})
        pa.parquet.write_table(shard.replace_schema_metadata(told), tmp_path / f"in/{name}.parquet")
    outcome = score(tmp_path / "out", tmp_path / "in", *NAMED)
    found = table.read(str(tmp_path / "out")).sort_by([("source", "ascending"), ("row", "ascending")])
    assert found["label"].to_pylist() == 2 * [9, 8, None, -1, None]
    assert (outcome.counts["labelled"], outcome.counts["labels_outside"]) == (4, 4)
    assert checked(tmp_path / "out")["labels"] == [
        "labels of 2 shards: by the names of 2 classes, which are in another order than the model's; the model has no "
        "class called cow"
    ]
    assert score(tmp_path / "unnamed", tmp_path / "in").counts["labelled"] == 6  # its classes have no names to go by


def test_labels_by_other_class_names_are_another_configuration(tmp_path: Path) -> None:
    feature = {"label": {"names": ["seven", "cow"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": feature}}).encode()}
    shard = pa.table({"image": [image for _, image, _ in digits(2)], "label": [0, 1]})
    pa.parquet.write_table(shard.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    score(tmp_path / "out", tmp_path / "a.parquet", *NAMED)
    assert list(labels(tmp_path / "out").values()) == [7, None]
    with pytest.raises(UsageError, match=r"the model's class 7 is called seven, now cow; use another --output, or"):
        score(tmp_path / "out", tmp_path / "a.parquet", "--model", "tests.shards:build_renamed")
    score(tmp_path / "out", tmp_path / "a.parquet", "--model", "tests.shards:build_renamed", "--replace")
    assert list(labels(tmp_path / "out").values()) == [None, 7]


def test_class_names_in_a_tar(tmp_path: Path) -> None:
    image = digits()[0][1]
    members = [("1.png", image), ("1.cls", b"seven\n"), ("2.png", image), ("2.json", b'{"label": "Two"}')]
    members += [("3.png", image), ("3.cls", b"3"), ("4.png", image), ("4.cls", b"cow")]
    outcome = score(tmp_path / "out", write_members(tmp_path / "a.tar", members), *NAMED)
    assert labels(tmp_path / "out") == {"1": 7, "2": 2, "3": 3, "4": None}
    assert outcome.counts["labels_outside"] == 1


def put(folder: Path, rows: Sequence[Any]) -> None:
    """The same picture files under ``plain://``, whose listings tell sizes alone."""
    fs = fsspec.filesystem(PlainFileSystem.protocol)
    for name, image, _ in rows:
        fs.pipe_file(f"{folder}/{name}", image)
    fs.pipe_file(f"{folder}-shard/a.parquet", Path(write_parquet(folder / "a.parquet", rows)).read_bytes())


def test_what_may_change_unnoticed_is_told_and_scanned_again(tmp_path: Path) -> None:
    rows = digits(6)
    put(tmp_path, rows)
    certain = write_parquet(tmp_path / "certain.parquet", digits(5))
    inputs = (f"plain://{tmp_path}", f"plain://{tmp_path}-shard/a.parquet", certain)
    outcome = score(tmp_path / "out", *inputs)
    assert outcome.counts["rows_scored"] == 17
    told = f"2 of 3 sources (the first is plain://{tmp_path}) have nothing but their size"
    assert f"warning: {told}" in summary(outcome)
    assert told in describe(job(tmp_path / "out", *inputs))
    assert checked(tmp_path / "out")["unidentified"] == 2
    before = table.read(str(tmp_path / "out"))
    put(tmp_path, [(name, image[:-1] + b"\0", label) for name, image, label in rows])  # as long as they were
    assert score(tmp_path / "out", *inputs).this_run["rows_in"] == 0
    outcome = score(tmp_path / "out", *inputs, "--rescan")
    assert (outcome.this_run["rows_in"], outcome.counts["rows_in"]) == (12, 17)
    assert checked(tmp_path / "out")["status"] == "done"
    after = table.read(str(tmp_path / "out"))
    digest = {row["id"]: row["digest"] for row in before.to_pylist() if row["source"] == inputs[0]}
    again = {row["id"]: row["digest"] for row in after.to_pylist() if row["source"] == inputs[0]}
    assert digest.keys() == again.keys()
    assert not set(digest.values()) & set(again.values())


def test_what_has_an_identity_is_not_scanned_again(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(5))
    score(tmp_path / "out", source)
    outcome = score(tmp_path / "out", source, "--rescan")
    assert outcome.this_run["rows_in"] == checked(tmp_path / "out")["unidentified"] == 0
