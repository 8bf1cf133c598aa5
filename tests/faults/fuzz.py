"""Mutated images, tars and Parquet files through the readers, the decoder and the worker, in one process.

    python -m tests.faults.fuzz KIND FIRST COUNT    # KIND: one of KINDS, or every; a case is its number, a seed

A case fails when anything but a score or a quarantine row comes of it: an exception, a crash, a hang, rows that do not
add up, or memory beyond the bound. The parent process (:func:`fuzz`) notices crashes and hangs and goes on after them.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from PIL import Image

from regrad import Classifier, table
from regrad.pipeline.plan import Unit, make_plan
from regrad.pipeline.worker import Task, UnitScorer
from regrad.reading.decode import BadImage, to_tensor
from regrad.reading.inputs import list_sources
from regrad.reading.samples import Sample
from regrad.reading.tar import TarReader
from regrad.reading.tars import survey
from tests import bad_images
from tests.faults.mutate import mutate
from tests.shards import Row, digits, records_of, write_hugging_face, write_parquet, write_tar

KINDS = ("image", "tar", "parquet", "cut")  # cut: tars that are cut wherever they may be
MAX_PIXELS = 4_000_000
CASE_SECONDS = 60.0  # a case takes milliseconds; this is for a machine that does much else
MEMORY_MIB = 512  # by which the peak may exceed that of the sound files: a few pictures of MAX_PIXELS
_ADDRESS_SPACE = 16 * 2**30  # an allocation without bound fails instead of taking the machine with it
_MOST_FAILURES = 20
CONTROL = digits(2)
KNOWN = {"parquet": (551, 1681)}  # what once took gigabytes and what ended the process, with the real images there
REAL = ("cifar10-test", "tinyimagenet-val", "omniglot-evaluation", "mnist-test")


def real_rows(count: int = 3) -> list[Row]:
    """A few real images of each data set that is there, in the three formats they come in."""
    folder = Path(os.environ.get("REGRAD_DATA", Path(__file__).parents[3] / "shared/data"))
    rows: list[Row] = []
    for name in REAL:
        if (folder / f"{name}.parquet").exists():
            file = pa.parquet.ParquetFile(folder / f"{name}.parquet")
            batch = next(file.iter_batches(count, columns=["id", "image", "label"])).to_pylist()
            rows += [(f"{name}/{row['id']}.png", row["image"], int(row["label"])) for row in batch]
    return rows


def images() -> list[bytes]:
    """Sound encoded images of every format."""
    photo = Image.effect_noise((40, 30), 80).convert("RGB")
    files = [*bad_images.good().values(), bad_images.strange()["progressive JPEG"]]
    files += [bad_images.save(photo, kind) for kind in ("JPEG", "WEBP", "GIF", "TIFF")]
    files += [bad_images.save(photo, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "tiff_adobe_deflate")]
    files += [bad_images.save(photo.convert("1"), "TIFF", compression="group4")]
    files += [bad_images.save(photo, "AVIF")] if "AVIF" in Image.SAVE else []
    return [*files, *(image for _, image, _ in real_rows())]


def tars(folder: Path) -> list[bytes]:
    """Sound tars: plain, compressed, with extended headers, of real images."""
    rows = [*digits(8), *real_rows(1)]
    files = [write_tar(folder / "a.tar", rows), write_tar(folder / "b.tar", digits(6), "w:gz")]
    files += [write_tar(folder / "c.tar", digits(4), "w:xz"), write_tar(folder / "d.tar", digits(4), "w:bz2")]
    for name, kind in (("e.tar", tarfile.PAX_FORMAT), ("f.tar", tarfile.GNU_FORMAT)):
        with tarfile.open(folder / name, "w", format=kind) as archive:
            for key, image, _ in digits(4):
                info = tarfile.TarInfo("long/" * 30 + key)
                info.size, info.pax_headers = len(image), {"comment": "é" * 40}
                archive.addfile(info, io.BytesIO(image))
        files.append(str(folder / name))
    return [Path(file).read_bytes() for file in files]


def parquets(folder: Path) -> list[bytes]:
    """Sound Parquet files: every encoding and compression that image shards come in."""
    rows = [*digits(30), *real_rows()]
    write_parquet(folder / "a.parquet", rows, 7)
    write_hugging_face(folder / "b.parquet", digits(20), 20)
    sound = pa.parquet.read_table(folder / "a.parquet")
    options: list[dict[str, Any]] = [
        {"compression": name, "use_dictionary": False, "data_page_version": version}
        for name, version in (("none", "1.0"), ("zstd", "2.0"), ("gzip", "1.0"), ("lz4", "2.0"), ("brotli", "1.0"))
    ]
    options.append({"use_dictionary": False, "column_encoding": {"image": "DELTA_LENGTH_BYTE_ARRAY"}})
    options.append({"write_page_index": True, "write_page_checksum": True, "data_page_size": 200})
    for number, option in enumerate(options):
        pa.parquet.write_table(sound, folder / f"{number}.parquet", row_group_size=11, **option)
    return [file.read_bytes() for file in sorted(folder.glob("*.parquet"))]


class Means:
    """A scorer that costs nothing: the network is not what is tried here."""

    names = ("entropy",)
    embedding_width = None

    def __call__(self, images: torch.Tensor, ids: list[str], labels: list[int | None]) -> dict[str, torch.Tensor]:
        values = images.double().mean((1, 2, 3)) / 255
        return {"prediction": torch.zeros(len(ids)), "confidence": values, "nll": values, "entropy": values}


class Fuzzer:
    """Runs cases of one ``kind`` in this process."""

    def __init__(self, kind: str, folder: Path):
        self.kind, self.folder = kind, folder
        (folder / "corpus").mkdir(parents=True)
        self.suffix = "tar" if kind == "cut" else kind
        made = {"image": lambda: images(), "tar": lambda: tars(folder / "corpus")}
        self.corpus = made.get(self.suffix, lambda: parquets(folder / "corpus"))()
        model = {"spec": "tests.shards:build"}
        classifier = Classifier.load(**model)
        settings: dict[str, Any] = {"scorer": {"scores": ("entropy",)}, "max_pixels": MAX_PIXELS, "threads": 1}
        task = Task(str(folder / "out"), model, fingerprint=classifier.fingerprint, provenance={}, **settings)
        self.scorer = UnitScorer(task, classifier=classifier, scorer=Means())  # type: ignore[arg-type]
        self.counts: Counter[str] = Counter()

    def case(self, number: int) -> None:
        """Case ``number``: the same bytes every time."""
        draw = np.random.default_rng([KINDS.index(self.kind), number])
        sound = self.corpus[int(draw.integers(len(self.corpus)))]
        self.run(mutate(self.suffix, sound, draw))

    def run(self, content: bytes) -> None:
        """One file through the pipeline.

        Raises:
            Exception: any, which is a failure of the case.
        """
        self.counts["cases"] += 1
        if self.kind == "image":
            self._decode(content)
        else:
            self._score(content)

    def _decode(self, content: bytes) -> None:
        try:
            image = to_tensor(content, self.scorer.classifier, MAX_PIXELS)
        except BadImage:
            self.counts["quarantined"] += 1
            return
        assert image.shape == (1, 8, 8), image.shape
        assert torch.isfinite(image).all(), image
        assert 0 <= image.min() <= image.max() <= 1, image
        self.counts["scored"] += 1

    def _units(self, inputs: Path) -> Sequence[Unit]:
        small, apart = survey.SMALL_BYTES, survey.MARK_ROWS
        if self.kind == "cut":
            survey.SMALL_BYTES, survey.MARK_ROWS = 0, 1
        try:
            return make_plan(list_sources([str(inputs)]), 2 if self.kind == "cut" else 16, "").pending
        finally:
            survey.SMALL_BYTES, survey.MARK_ROWS = small, apart

    def _score(self, content: bytes) -> None:
        """The mutant beside a sound shard, listed, planned, read, scored and committed."""
        inputs, output = self.folder / "in", self.folder / "out"
        for folder in (inputs, output):
            shutil.rmtree(folder, ignore_errors=True)
        control = write_parquet(inputs / "control.parquet", CONTROL)
        mutant = inputs / f"mutant.{self.suffix}"
        mutant.write_bytes(content)
        units = self._units(inputs)
        if self.kind == "cut":
            pieces = [sample for unit in units if unit.source == str(mutant) for sample in read(unit)]
            assert pieces == list(TarReader(str(mutant)).rows()), "its pieces are not the whole"
        records = records_of(self.scorer.score(units))
        assert len(records) == len(units), (len(records), len(units))
        counted = Counter()
        for record in records:
            counted += Counter({name: record[f"rows_{name}"] for name in ("in", "scored", "quarantined")})
            if record["source"] == control:
                assert record["rows_scored"] == len(CONTROL), record
        assert counted["in"] == counted["scored"] + counted["quarantined"], counted
        scored = table.read(str(output))
        assert scored.num_rows == counted["scored"], (scored.num_rows, counted)
        held = set(zip(scored["source"].to_pylist(), scored["row"].to_pylist(), strict=True))
        assert len(held) == scored.num_rows, "a row is there twice"
        assert all(np.isfinite(scored["entropy"].to_numpy()))
        if counted["quarantined"]:
            bad = table.read(str(output), kind="quarantine")
            assert bad.num_rows == counted["quarantined"], (bad.num_rows, counted)
            assert set(bad["stage"].to_pylist()) <= {"list", "read", "decode", "preprocess", "score"}
            assert all(bad["reason"].to_pylist())
        self.counts["scored"] += counted["scored"] - len(CONTROL)
        self.counts["quarantined"] += counted["quarantined"]


def read(unit: Unit) -> list[Sample]:
    """What a worker reads of a tar for this unit."""
    reader = TarReader(unit.source)
    reader.extent = unit.extent
    return list(reader.rows(unit.start, unit.stop))


def peak_mib() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def child(kind: str, first: int, count: int) -> dict[str, Any]:
    """Run the cases; the number of the one in hand is in the file that the environment names."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    here = os.open(os.environ.get("REGRAD_FUZZ_AT", os.devnull), os.O_WRONLY)
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="regrad-fuzz-", dir=shared if shared.is_dir() else None) as folder:
        faulthandler.dump_traceback_later(10 * CASE_SECONDS, exit=True)
        fuzzers = [Fuzzer(name, Path(folder) / name) for name in (KINDS if kind == "every" else (kind,))]
        for fuzzer in fuzzers:
            for content in fuzzer.corpus:
                fuzzer.run(content)
            for number in KNOWN.get(fuzzer.kind, ()):
                fuzzer.case(number)
            fuzzer.counts.clear()
        started, baseline = time.monotonic(), peak_mib()
        failures: list[list[Any]] = []
        for number in range(first, first + count):
            os.pwrite(here, b"%20d" % number, 0)
            faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)
            try:
                fuzzers[number % len(fuzzers)].case(number)
            except Exception:
                failures.append([number, traceback.format_exc()])
            if (growth := peak_mib() - baseline) > MEMORY_MIB:
                failures.append([number, f"the peak of memory is {growth} MiB above that of sound files"])
            if growth > MEMORY_MIB or len(failures) == _MOST_FAILURES:
                break
        faulthandler.cancel_dump_traceback_later()
    return {
        **{name: sum(fuzzer.counts[name] for fuzzer in fuzzers) for name in ("cases", "scored", "quarantined")},
        "seconds": time.monotonic() - started,
        "growth_mib": peak_mib() - baseline,
        "failures": failures,
    }


def fuzz(kind: str, first: int, count: int) -> dict[str, Any]:
    """Run the cases in a child process, and after a crash or a hang the rest in another; the sums over all."""
    sums: Counter[str] = Counter()
    failures: list[list[Any]] = []
    end, growth = first + count, 0
    with tempfile.NamedTemporaryFile() as at:
        while first < end and len(failures) < _MOST_FAILURES:
            command = [sys.executable, "-m", "tests.faults.fuzz", kind, str(first), str(end - first)]
            environment = {**os.environ, "REGRAD_FUZZ_AT": at.name}
            root = Path(__file__).parents[2]
            done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
            if done.returncode in (0, 1) and done.stdout:
                found = json.loads(done.stdout.splitlines()[-1])
                failures += found.pop("failures")
                growth = max(growth, found.pop("growth_mib"))
                first += found["cases"]
                sums += Counter({name: found[name] for name in ("cases", "scored", "quarantined", "seconds")})
                continue
            number = int(Path(at.name).read_text() or -1)
            failures.append([number, f"exit code {done.returncode}: {done.stderr[-3000:]}"])
            if number < first:
                break  # it did not come to its first case
            sums += Counter({"cases": number - first + 1, "crashes or hangs": 1})
            first = number + 1
    return {**sums, "growth_mib": growth, "failures": failures}


def explain(kind: str, failures: list[list[Any]]) -> str:
    """What failed, and the command that repeats it."""
    return "\n".join(f"python -m tests.faults.fuzz {kind} {number} 1\n{why}" for number, why in failures)


if __name__ == "__main__":
    result = child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps(result))
    sys.exit(bool(result["failures"]))
