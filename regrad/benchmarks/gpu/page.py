"""docs/gpu.md: what was measured, or that nothing was yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from regrad.benchmarks import render
from regrad.benchmarks.gpu.equality import worst

Pieces = Sequence[dict[str, Any]]

INTRODUCTION = """# On a GPU

One command measures everything, with PyTorch, NumPy, Pillow, safetensors and this repository: no Ray, no network.

    regrad benchmark gpu --images cifar10.npz --pack cifar10-train.parquet cifar10-test.parquet
    python -m regrad benchmark gpu --images cifar10.npz --output gpu --minutes 8   # where the GPU is, in a clone
    regrad benchmark gpu --render gpu                                              # writes this page

The first makes one file of at most 50 MB: the training images as lossy WebP of quality 95, 5,000 test images as they
are. The second runs its parts one after another, each in a process of its own and with its share of the minutes;
`gpu/gpu.json` is written after every result, and a part that fails or takes too long leaves the others alone; the same
command again goes on with the parts that are not whole. Beside it are the trained weights in half precision, for
`--model regrad.networks:resnet18_cifar10 --weights gpu/resnet18-cifar10.safetensors.index.json`. Without a GPU the same
command runs a tiny form of every part; without `--images` nothing is trained, and weights are random. `laplace` is
compared where laplace-torch is installed.

What launches cost was counted without a GPU: the exact engine makes 216 operations a class of a ResNet-18 for images of
32x32, the backward pass included, whatever the number of images, and none that the host waits for; where ten classes go
at once it makes 27. How many go at once follows from the memory that the images leave and from how large an operation
is: for few or small images all of them, for many large ones one. `exact, tf32` is one class at a time, `exact, tf32,
classes at once` as a run plans it, and the batch sizes and profiles are as planned too; on a CPU it is always one, and
the plan is for images side by side. The last table of the engines is of the first network alone: `compiled` is the same
with torch.compile, or why that failed; its graphs end at every layer that is watched. A recorded graph (CUDA graphs)
would be of one shape and of hooks that stay, where pieces of a batch differ in shape and every pass sets its own;
classes at once do away with the same launches. The part on profiles says how much of a batch the device was busy, and
the one on batch sizes what larger ones bring.
"""
LEARNED = """
## What the first measurements showed

On 2026-11-27 and 28 an NVIDIA H200 (PyTorch 2.11, 16 virtual cores that were not all its own) was at hand twice, for
seven and for four minutes. The tables below are of the second time, but for the training; what was mended between:

- PyTorch rounds a GPU's convolutions to TensorFloat-32 unless told otherwise, and the engines were told so for
  scoring, not while they were made. Rules that were right differed from autograd by more than they may; ten of a
  ResNet-18's layers were dropped, and `regrad score` of REGrad and ExGrad had not one of 2,000 CIFAR-10 images in
  40 s. Scorers are now made in full float32: all 2,000 in 5.3 s, behind 15 s of start. The pretended GPU of the tests
  rounds as a GPU would, and shows the fault.
- Unfolding was a launch an image: 704 of the 1,381 launches of 64 images' batch. Patches are now one copy of a view:
  REGrad went from 1,170 to 1,460 images/s in batches of 64, from 504 to 650 in batches of 16, and the device is busy
  for 87 % of the time in place of 71.
- The worker turned decoded pictures into floats, under Python's lock. They now stay levels of 255, of which the device
  makes floats: 1,150 images of 224x224 a second with one decoding thread and 1,980 with two, 600 and 860 before. More
  than four threads decode fewer: they wait for the lock. A worker now lets as many decode at once as it is worth for
  images that take so long, and `--decode-workers` adds processes; neither was measured there.
- The comparison with the CPU was not through its first scorer in 20 s: PyTorch's threads on the CPU spin at barriers,
  also for cores that the machine does not really have. regrad's processes now ask for threads that sleep
  ([Cores that others use too](throughput.md#cores-that-others-use-too)): two of six comparisons in 40 s, each score
  within 9e-5 of the CPU's but for `vim`. That one was fitted on 32 images, fewer than it has leading directions, and
  rounding alone set its scale; it does no longer, which was not measured there.

TensorFloat-32 is 5.8 times as fast as float32 for the ResNet-18, at an error of 3.5e-4 where the layers left out alone
make 3.0e-4; bfloat16 is no faster there, and 1.4 times as fast for the ResNet-50's sketch. Classes at once were 1.4
times as fast as one after another with C = 10, 3.2 times with C = 100, before launches were saved; now 1.1 with C = 10.
"""
UNMEASURED = """
**Not measured yet**: no GPU was at hand so far. What is said of GPUs elsewhere in these pages was tried on a pretended
device, which shows what goes where and what makes the host wait, and not how fast.
"""


def gpu_page(results: dict[str, Any] | None) -> str:
    """The whole page, as Markdown."""
    if results is None:
        return INTRODUCTION + UNMEASURED
    parts = []
    for name, part in results["parts"].items():
        ended = "" if part["ended"] == "whole" else f" This part is not whole: {part['ended']}."
        heading = (
            f"\n## {part['does'][:1].upper()}{part['does'][1:]}\n\n{part['date']}, {part['seconds']:.0f} s.{ended}\n"
        )
        parts.append(heading + (SHOWN[name](part["pieces"]) if part["pieces"] else ""))
    tiny = (
        "\n**The tiny form**: these numbers say that the command runs, and nothing of speed.\n"
        if results["tiny"]
        else ""
    )
    return INTRODUCTION + LEARNED + tiny + "".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _machine(pieces: Pieces) -> str:
    return "\n" + ", ".join(f"{name} {value}" for name, value in pieces[0].items()) + "\n"


def _train(pieces: Pieces) -> str:
    last = pieces[-1]
    if "skipped" in last:
        return f"\nNot run: {last['skipped']}.\n"
    epochs = [piece for piece in pieces if "epoch" in piece]
    said = [f"{len(epochs)} of {epochs[-1]['of']} epochs in {epochs[-1]['seconds']:.0f} s"] if epochs else []
    if "accuracy" in last:
        said.append(f"{last['accuracy']:.2%} of {last['test_images']} test images right")
    return "\n" + (", ".join(said) or "No epoch was through") + ".\n"


def _engines(pieces: Pieces) -> str:
    shown = []
    for piece in pieces:
        seconds = piece.get("reference_seconds_per_image")
        beside = f"The definition by autograd: {seconds:.3g} s an image. " if seconds else ""
        beside += f"N+1 plain forward passes: {piece['forward_seconds_per_image']:.3g} s an image."
        shown.append(f"\n{render.markdown(piece)}\n\n{beside}\n")
    return "".join(shown)


def _equality(pieces: Pieces) -> str:
    rows = []
    for piece in pieces:
        score, difference = worst(piece["differences"])
        same = f"{piece['same_prediction']:.1%}"
        rows.append((piece["case"], piece["engine"], str(len(piece["differences"])), score, f"{difference:.1e}", same))
    return _table(("network", "engine", "scores", "differs most", "by, of the largest", "same prediction"), rows)


def _batches(pieces: Pieces) -> str:
    rows = []
    for piece in pieces:
        budget = f"{piece['budget'] / 1e6:.0f}" if piece["budget"] else "half of what is free"
        if "cannot" in piece:
            found = (f"cannot: {piece['cannot']}", "", "")
        else:
            numbers = (piece["images_per_second"], piece["peak_mb"], piece["planned_mb"])
            found = (f"{numbers[0]:.3g}", f"{numbers[1]:.0f}", f"{numbers[2]:.0f}")
        rows.append((piece["case"], piece["engine"], str(piece["batch"]), budget, *found))
    return _table(("network", "engine", "batch", "budget, MB", "images/s", "peak MB", "planned MB"), rows)


def _feeding(pieces: Pieces) -> str:
    rows = [
        (p["network"], p["score"], str(p["threads"]), f"{p['images_per_second']:.4g}", f"{p['waited']:.0%}")
        for p in pieces
    ]
    return _table(("network", "score", "decoding threads", "images/s", "the scorer waited"), rows)


def _profiles(pieces: Pieces) -> str:
    rows, dearest = [], []
    for p in pieces:
        busy = f"{p['busy'] / p['seconds']:.0%}"
        rows.append((p["case"], p["engine"], str(p["images"]), f"{p['seconds']:.3g}", busy, str(p["launches"])))
        named = [(e["name"].replace("|", " "), f"{1000 * e['seconds']:.3g}", str(e["calls"])) for e in p["dearest"]]
        dearest.append(f"\n{p['case']}, {p['engine']}:\n" + _table(("operation or kernel", "ms", "calls"), named))
    return _table(("network", "engine", "images", "s", "device busy", "launches"), rows) + "".join(dearest)


SHOWN: dict[str, Callable[[Pieces], str]] = {
    "machine": _machine,
    "train": _train,
    "equality": _equality,
    "feeding": _feeding,
    "batches": _batches,
    "profiles": _profiles,
    "engines": _engines,
}
