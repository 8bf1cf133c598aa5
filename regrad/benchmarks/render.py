"""Results as a table for the terminal, as Markdown, and as a plot."""

from __future__ import annotations

import io
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

import torch

from regrad.formatting import aligned


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on, and when."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else model,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }


HEAD = ("", "x forwards", "range", "estimate", "images", "peak MB", "error", "")


def table(result: dict[str, Any]) -> str:
    """One case as text, columns aligned."""
    forward = result["forward_seconds_per_image"]
    rows = [HEAD, *(cells(row) for row in result["rows"])]
    return "\n".join([result["describe"], f"N+1 forwards: {forward:.3g} s an image", *aligned(rows)])


def markdown(result: dict[str, Any]) -> str:
    """The same for a README."""
    lines = [HEAD, ("---",) * len(HEAD), *(cells(row) for row in result["rows"])]
    return "\n".join([f"**{result['describe']}**", "", *(f"| {' | '.join(line)} |" for line in lines)])


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The columns of one contender; ``~`` marks a ratio that was scaled from fewer classes."""
    if row["cannot"]:
        return (row["name"], "-", "", "", "", "", "", f"cannot: {row['cannot'][:80]}")
    timed, scaled = row["ratio"] is not None, row["scaled_from"]
    note = row["does"] + (f"; scaled from C = {scaled[0]} and {scaled[1]}" if scaled else "")
    return (
        row["name"],
        f"{'~' if scaled else ''}{row['ratio']:.3g}" if timed else "-",
        f"{row['low']:.3g} to {row['high']:.3g}" if timed else "emulated",
        f"{row['plan']['cost'][row['plan']['engine']]:.3g}" if row["plan"] and not scaled else "",
        str(row["images"]),
        "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}",
        f"{row['error']['max']:.1e}" if row["error"] else "",
        note,
    )


def plot(sweeps: dict[str, Sequence[dict[str, Any]]]) -> bytes:
    """Cost against the number of classes and against N, as SVG: one panel for each sweep."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(sweeps), figsize=(5 * len(sweeps), 4), squeeze=False)
    for panel, (axis, results) in zip(panels[0], sweeps.items(), strict=True):
        for name in [row["name"] for row in results[0]["rows"]]:
            points = [(r[axis], row["ratio"]) for r in results for row in r["rows"] if row["name"] == name]
            panel.plot(*zip(*[point for point in points if point[1]], strict=True), marker="o", label=name)
        panel.set(xlabel={"classes": "classes C", "samples": "noisy copies N"}[axis], ylabel="times N+1 plain forwards")
        panel.set(yscale="log", xscale="log" if axis == "classes" else "linear")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()
