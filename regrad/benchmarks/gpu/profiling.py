"""(f) One batch of each engine under PyTorch's profiler: what its time goes into, so that no change is a guess."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from regrad import Scorer
from regrad.benchmarks.gpu import speed
from regrad.benchmarks.gpu.bench import Bench
from regrad.network.probe import probe_images

SHOWN = 12


def profiles(bench: Bench) -> Iterator[dict[str, Any]]:
    """Seconds of a batch, what the device was busy of them, how often something was launched, and the dearest."""
    gpu = bench.device != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    for case in speed.cases(bench):
        classifier = case.classifier()
        images = probe_images(case.batch, classifier.channels, classifier.image_size)
        ids = [str(row) for row in range(len(images))]
        for engine in ("exact", "sketch") if classifier.num_classes <= speed.MOST_CLASSES else ("sketch",):
            scorer = Scorer(classifier, samples=case.samples, engine=engine, precision="tf32", device=bench.device)
            scorer(images, ids)  # warms up
            started = time.perf_counter()
            scorer(images, ids)
            seconds = time.perf_counter() - started
            with profile(activities=activities) as recorded:
                scorer(images, ids)
            events = recorded.key_averages()
            cost = "self_device_time_total" if gpu else "self_cpu_time_total"
            # A kernel's time is that of the operation which launched it, too.
            own = [event for event in events if (event.device_type == DeviceType.CUDA) == gpu]
            ranked = sorted(own, key=lambda event: -float(getattr(event, cost)))
            yield {
                "case": case.name,
                "engine": engine,
                "images": len(images),
                "seconds": seconds,
                "busy": sum(float(getattr(event, cost)) for event in own) / 1e6,
                "launches": sum(event.count for event in events if "LaunchKernel" in event.key),
                "operations": sum(event.count for event in events if event.key.startswith("aten::")),
                "dearest": [
                    {"name": event.key[:100], "seconds": float(getattr(event, cost)) / 1e6, "calls": event.count}
                    for event in ranked[:SHOWN]
                ],
            }
