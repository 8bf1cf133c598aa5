"""What workers tell Prometheus, through Ray: how many images, how long units take, and what workers do with their time.

Every node of a cluster shows them at its metrics port. Ray puts ``ray_`` before a name, ``_total`` behind that of a
counter and ``_bucket``, ``_sum`` and ``_count`` behind that of a histogram; :func:`exported` has the names as they are
there, which ``infra/monitoring/grafana-dashboard.json`` asks for.
"""

from __future__ import annotations

import threading
import time
from urllib.parse import quote

from ray.util.metrics import Counter, Histogram

# What a worker does: get the model, wait for units, wait for images, or keep the network busy.
LOADING, IDLE, READING, SCORING = "loading", "idle", "reading", "scoring"
COUNTERS = {
    "regrad_images": ("images that were looked at", ("output", "outcome")),
    "regrad_worker_seconds": ("time of the workers by what they did with it", ("output", "state")),
}
HISTOGRAMS = {"regrad_unit_seconds": ("from the first row read to the commit of a unit", ("output",))}
_UNIT_SECONDS = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0]
_SETTLE_SECONDS = 2.0


def exported() -> set[str]:
    """The names that Prometheus finds."""
    histograms = {f"ray_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}
    return {f"ray_{name}_total" for name in COUNTERS} | histograms


def _ascii(text: str) -> str:
    """``text`` as a tag may be, which Ray sends as ASCII alone: other characters as a URI has them.

    >>> _ascii("/tmp/für José")
    '/tmp/f%C3%BCr Jos%C3%A9'
    """
    return quote(text, safe="".join(map(chr, range(32, 127))), errors="surrogateescape")


class WorkerMetrics:
    """The metrics of one worker, labelled with the output it writes to; its time is told by a thread of its own."""

    def __init__(self, output: str):
        counters = {name: Counter(name, text, tags) for name, (text, tags) in COUNTERS.items()}
        ((unit_seconds, (text, tags)),) = HISTOGRAMS.items()
        self._images, self._seconds = counters["regrad_images"], counters["regrad_worker_seconds"]
        self._unit_seconds = Histogram(unit_seconds, text, _UNIT_SECONDS, tags)
        for metric in (self._images, self._seconds, self._unit_seconds):
            metric.set_default_tags({"output": _ascii(output)})
        self._state, self._since = LOADING, time.monotonic()
        self._lock = threading.Lock()
        threading.Thread(target=self._tell, name="regrad-metrics", daemon=True).start()

    def images(self, scored: int, quarantined: int) -> None:
        """Count images that were looked at since the last call."""
        for outcome, number in (("scored", scored), ("quarantined", quarantined)):
            if number:
                self._images.inc(number, {"outcome": outcome})

    def unit(self, seconds: float) -> None:
        """A unit has committed, so long after its first row was read."""
        self._unit_seconds.observe(seconds)

    def enter(self, state: str) -> None:
        """Settle the time spent so far, and count what follows for ``state``."""
        with self._lock:
            self._settle()
            self._state = state

    def _settle(self) -> None:
        now = time.monotonic()
        if now > self._since:
            self._seconds.inc(now - self._since, {"state": self._state})
        self._since = now

    def _tell(self) -> None:
        while True:  # a state may last for hours
            time.sleep(_SETTLE_SECONDS)
            with self._lock:
                self._settle()
