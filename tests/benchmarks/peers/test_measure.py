"""Contenders side by side, in a small form: programs that write rows without a network, and one of the real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad.benchmarks.peers import measure
from regrad.benchmarks.peers.known import PEERS, Peer
from regrad.benchmarks.peers.measure import PeersFile, measure_losses, measure_speed, medians, named_peers
from regrad.benchmarks.steady import Work
from regrad.commands.clone import benchmark
from regrad.errors import UsageError
from tests.shards import digits, write_parquet

# Hands out prepared rows of its images in batches of ten, a file each, and leaves out what ends early.
HONEST = """
import json, os, shutil, sys, time
folder, output, settings = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3]))
os.makedirs(output, exist_ok=True)
names = sorted(os.listdir(folder))
cut = [name for name in names if open(os.path.join(folder, name), "rb").read()[-8:-4] != b"IEND"]
for start in range(0, len(names), settings["batch"]):
    some = names[start : start + settings["batch"]]
    kind = "cut" if set(cut) & set(some) else "whole"
    shutil.copy(f"{sys.argv[0]}-{kind}-{start}", f"{output}/{time.time()}.parquet")
    with open(os.environ["REGRAD_PEERS_LOG"], "a") as log:
        log.write(f"{time.time()} {os.getpid()} {len(some) - len(set(cut) & set(some))}\\n")
    time.sleep(0.12)
"""


@pytest.fixture
def work(tmp_path: Path) -> Work:
    pictures = (write_parquet(tmp_path / "in.parquet", digits(40)),)
    return Work("tiny", "tests.shards:build", "entropy", 0, 40, batch=10, pictures=pictures)


def program(folder: Path, name: str, code: str, library: str = "numpy", value: float = 1.0) -> Peer:
    script = folder / f"{name}.py"
    script.write_text(code)
    for start in range(0, 40, 10):
        ids = [f"{number:05}.png" for number in range(start, start + 10)]
        for kind, some in {"whole": ids, "cut": ids[1:]}.items():
            pa.parquet.write_table(pa.table({"id": some, "entropy": [value] * len(some)}), f"{script}-{kind}-{start}")
    return Peer(name, library, str(script))


@pytest.fixture
def peers(tmp_path: Path) -> list[Peer]:
    return [
        program(tmp_path, "first", HONEST),
        program(tmp_path, "second", HONEST, value=1.25),
        program(tmp_path, "broken", "raise SystemExit('it cannot do that')"),
        program(tmp_path, "none", "", "no-such-library"),
    ]


def test_speeds_are_of_interleaved_rounds_and_a_peer_that_cannot_says_why(work: Work, peers: Sequence[Peer]) -> None:
    said: list[str] = []
    told = measure_speed(work, 2, {}, said.append, peers)
    order = [line.rpartition(", ")[2] for line in said]
    assert order == ["first", "second", "broken", "second", "first"]
    rows = {row["name"]: row for row in told["rows"]}
    assert rows["none"]["cannot"] == "not installed"
    assert rows["broken"]["cannot"] == "it cannot do that"
    assert [len(rows[name]["rounds"]) for name in rows] == [2, 2, 0, 0]
    middle = medians(rows["second"])
    assert middle["difference"] == 0.25
    assert medians(rows["first"])["difference"] == 0
    assert 20 < middle["steady"] < 90  # ten in something over 0.12 s
    assert 0.36 < middle["seconds"] < 20


def test_what_is_lost_is_counted_in_what_lies_on_disk(work: Work, peers: Sequence[Peer]) -> None:
    (row,) = measure_losses(work, {}, lambda line: None, peers[:1])["rows"]
    truncated, killed, worker = (row[fault] for fault in measure.FAULTS)
    assert [truncated[name] for name in ("scored", "told", "lost", "doubled", "through")] == [39, 0, 1, 0, 39]
    assert killed["ended"] == [-9, 0]
    assert killed["scored"] + killed["doubled"] == 40
    assert killed["doubled"] == killed["through"] - 40 >= 20  # it begins again, and appends
    assert (worker["nothing_to_kill"], worker["scored"]) == (True, 40)


def test_the_newest_rows_are_kept_beside_the_others(tmp_path: Path) -> None:
    for version in ("1", "2"):
        for peer in (PEERS[2], PEERS[0]) if version == "1" else (PEERS[2],):
            row = {"name": peer.name, "version": version}
            PeersFile(str(tmp_path)).add("losses", {"work": "tiny", "images": 3, "rows": [row]})
    told = json.loads((tmp_path / "peers.json").read_text())
    versions = [(row["name"], row["version"]) for row in told["losses"]["tiny"]["rows"]]
    assert versions == [(PEERS[0].name, "1"), (PEERS[2].name, "2")]
    assert told["speed"] == {}


def test_a_contender_that_is_none_is_named() -> None:
    with pytest.raises(UsageError, match="no contender Pandas; those of peers are regrad score, in one process; "):
        named_peers(["Pandas", "Daft"])


def test_the_command_measures_and_writes_the_page(
    work: Work,
    peers: Sequence[Peer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(measure, "RACES", {"tiny": replace(work, images=20)})
    monkeypatch.setattr(measure, "PEERS", peers[:1])
    arguments = ["peers", "--images", *work.pictures, "--rounds", "1", "--output", str(tmp_path / "out")]
    assert benchmark.main(arguments) == 0
    assert "| first | " in capsys.readouterr().out
    assert benchmark.main([*arguments, "--faults"]) == 0
    assert "| first | truncated | 19 | 0 | 1 | 0 | 95 | 0 |" in capsys.readouterr().out
    assert benchmark.main(["peers", "--render", str(tmp_path / "out"), "--output", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "**20 images, tiny**, 1 round, load average " in page
    assert "| first | command killed |" in page
