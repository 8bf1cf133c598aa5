"""docs/peers.md: regrad beside other ways to score images, as measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from regrad.benchmarks.peers.measure import FAULTS, medians

Told = Mapping[str, Any]

INTRODUCTION = """# Beside other ways to score images

The same images, network and scores by other tools, each by a script as its user would write it ([peers/](peers/)):
a loop over PyTorch's `DataLoader`; Ray Data's `read_images`, `map_batches`, `write_parquet`; Ray Data's
`read_parquet`, `download`, `map_batches(ScoreImages)`, `write_parquet` with
[its checkpoint](interoperability.md#a-pipeline-that-goes-on); Daft; and NeMo Curator. All of them score with
`regrad.Scorer`: what is compared is the way of an image to its row.

    regrad benchmark peers --output peers --images SHARDS --pythons daft=PYTHON nemo-curator=PYTHON --rounds 3
    regrad benchmark peers --output peers --images SHARDS --pythons daft=PYTHON nemo-curator=PYTHON --faults
    regrad benchmark peers --render peers    # writes this page

`--pythons` names interpreters with a library that regrad's own environment has not, beside what regrad needs. Each
contender is a command of its own; batches, blocks and units of work have the same number of rows. `--cases` and
`--contenders` choose; what was measured before of the others stays in `peers/peers.json`.
"""
SPEED_WORDS = """Medians of the rounds, of which every second has the opposite order: seconds from the command to the
last row on disk, images a second from the first scored batch to the last, the most memory that all processes held at
once (shared pages counted once), and the largest difference of a score from the first row's. The load average is what
it was when a contender began: where it is above 6 or so, other work ran beside, more of it beside some than beside
others, and seconds and images/s are no comparison."""
LOSS_WORDS = """One run each. `truncated`: one image ends in its middle. `command killed`: SIGKILL to the process group
of the command when half of the images are scored, then the same command again. `worker killed`: SIGKILL to the process
that scores or, where that is the command itself, to one that it forked. Every image is counted in what lies on disk at
the end: scored once; in a row that says that it failed; in no row; in several rows. Through the network are the rows
that were scored in all runs, over the images: 100 is nothing twice, but for the batch that was under way."""
LEARNED = """## What follows, and what the tables do not show

As tried on 2026-11-28, on CPUs:

- Where programs decode with Pillow or DALI, all scores are the same to the last bit, REGrad's too if images go by the
  same names, of which noise is drawn. Daft's decoder of JPEGs gives other pixels.
- Of the truncated image `regrad score` and `ScoreImages` say that it failed, and score the others. The DataLoader,
  `read_images` and NeMo Curator's reader raise, and the command ends with what was not yet written, here everything.
  Daft scores it without a word: of a JPEG cut in half its decoder gave 111 of 227 lines of pixels, the rest grey, so
  that the row is like any other.
- Of a killed command `regrad score` and Ray Data with its checkpoint lose the batches that were under way. Without a
  checkpoint Ray Data begins again and appends: images are there twice. The DataLoader and Daft write at the end, and
  begin again from nothing. NeMo Curator begins again too, and writes over its files of before, whose names follow from
  the tars; its own checkpoint (`checkpoint_path`) needs a Ray cluster that runs already, and was not measured.
- A killed worker is replaced by Ray, whoever uses it. A DataLoader ends. `regrad score` in one process and Daft have
  none: what kills them kills the command.
- The DataLoader has no plan to make, no digests, no commits, and no cluster to start: for sound images that are
  scored in minutes it is the shortest way, and a fast one. Ray costs its start, and memory, in each of the four that
  use it; `regrad score` leaves it out where all is done in 20 seconds.
- Ray Data with `ScoreImages` and a checkpoint comes nearest: nothing lost, nothing twice, failures told. What it
  does not know is in [interoperability.md](interoperability.md#a-pipeline-that-goes-on): another model, another
  setting, an image that changed, a file of output that is gone.
- On 2 cores the pipeline that downloads wants `ray.init(num_cpus=4)`: with 2, actors hold both and wait for each other.
  Both pipelines of Ray Data want `OMP_NUM_THREADS`, else a scorer has one thread.
- Daft 0.7.26 wants pyarrow below 26, and NeMo Curator brings 100 packages: each has an environment of its own. NeMo
  Curator 1.4.0 installs without a GPU (`nemo-curator[image_cpu]`), its image reader needs NVIDIA DALI beside it
  (`nvidia-dali-cuda120`, 2.4.0) and as it is asks for GPU 0, which DALI refuses without one; the script here overrides
  that. It names images by tar and place, so that the script reads the tars again for their names.
"""
FASTER = ("way", "version", "s", "images/s", "peak MB", "score apart")
LOST = ("way", "", "scored", "told failed", "lost", "doubled", "through the network, %", "exit codes")


def peers_page(measured: Told) -> str:
    """The page of what `regrad benchmark peers` wrote."""
    machine = measured["machine"]
    where = f"{machine['date']}, {machine['cores']} cores ({machine['device']}), torch {machine['torch']}."
    speed = [f"{_heading(result)}\n\n{speeds_as_markdown(result)}" for result in measured["speed"].values()]
    losses = [f"{_heading(result)}\n\n{losses_as_markdown(result)}" for result in measured["losses"].values()]
    fast = ["## How fast", f"{where} {SPEED_WORDS}", *speed]
    lost = ["## What is lost", LOSS_WORDS, *losses]
    return "\n\n".join(part.strip() for part in (INTRODUCTION, *fast, *lost, LEARNED)) + "\n"


def speeds_as_markdown(result: Told) -> str:
    """A row a contender: medians, or why there is none."""
    return _table(FASTER, (_speed_cells(row) for row in result["rows"]))


def losses_as_markdown(result: Told) -> str:
    """A row a contender and fault: what became of the images."""
    return _table(LOST, (cells for row in result["rows"] for cells in _loss_rows(row, result["images"])))


def _heading(result: Told) -> str:
    """What was scored, how often, and beside which load."""
    loads = sorted(each["load"] for row in result["rows"] for each in row["rounds"])
    rounds = max(len(row["rounds"]) for row in result["rows"])
    beside = f", {rounds} round{'s' * (rounds > 1)}, load average {loads[0]:.1f} to {loads[-1]:.1f}" if loads else ""
    return f"**{result['images']} images, {result['work']}**{beside}:"


def _speed_cells(row: Told) -> Sequence[str]:
    if row["cannot"]:
        return (row["name"], row["version"], f"cannot: {row['cannot']}", "", "", "")
    middle = medians(row)
    numbers = (f"{middle['seconds']:.1f}", f"{middle['steady']:.3g}", f"{middle['peak_mb']:,.0f}")
    return (row["name"], row["version"], *numbers, f"{middle['difference']:.0e}" if middle["difference"] else "0")


def _loss_rows(row: Told, images: int) -> Iterable[Sequence[str]]:
    if row["cannot"]:
        yield (row["name"], f"cannot: {row['cannot']}", *[""] * (len(LOST) - 2))
        return
    for fault in FAULTS:
        if fault not in row:
            continue
        told = row[fault]
        if told["nothing_to_kill"]:
            yield (row["name"], fault, "it has none", *[""] * (len(LOST) - 3))
            continue
        counts = [str(told[name]) for name in ("scored", "told", "lost", "doubled")]
        counts[0] += ", the broken one too" if fault == "truncated" and told["scored"] == images else ""
        codes = ", ".join(str(code) for code in told["ended"])
        yield (row["name"], fault, *counts, f"{100 * told['through'] / images:.0f}", codes)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *rows))
