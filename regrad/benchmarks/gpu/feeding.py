"""(d) Images a second from encoded bytes to scores, over decoding threads, and how long the scorer waited for them."""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from regrad import Classifier, Scorer
from regrad.benchmarks.gpu import networks
from regrad.benchmarks.gpu.bench import Bench
from regrad.network.probe import probe_images
from regrad.reading.decode import to_compact

THREADS = (1, 2, 4, 8, 16)
BATCH, AHEAD = 64, 3  # images of a batch; batches that may be decoded before they are needed, as a worker does it
PICTURES = 64  # that differ
_SECONDS = 2.0  # of a measurement


def feeding(bench: Bench) -> Iterator[dict[str, Any]]:
    """Decode, pin, upload and score as a worker does, without storage: ``entropy`` and REGrad on JPEGs of 224x224."""
    spec = "tiny_resnet" if bench.tiny else "plain_resnet18"
    network, known = getattr(networks, spec)()
    classifier = Classifier(network.eval(), **known)
    contents = _jpegs(classifier, 4 if bench.tiny else PICTURES)
    threads = (1, 2) if bench.tiny else tuple(each for each in THREADS if each <= (os.cpu_count() or 1))
    for score in ("entropy", "regrad"):
        scorer = Scorer(classifier, (score,), precision="tf32", device=bench.device)
        for each in threads:
            found = _fed(scorer, classifier, contents, each, 0.2 if bench.tiny else _SECONDS)
            yield {"network": spec, "score": score, "threads": each, **found}


def _fed(
    scorer: Scorer, classifier: Classifier, contents: Sequence[bytes], threads: int, seconds: float
) -> dict[str, Any]:
    batch = min(BATCH, len(contents))
    ids = [str(row) for row in range(batch)]
    decoding: deque[Future[Tensor]] = deque()
    given = waited = 0.0
    with ThreadPoolExecutor(threads) as pool:

        def submit() -> None:
            decoding.append(pool.submit(to_compact, contents[len(decoding) % len(contents)], classifier.preprocessing))

        def next_batch() -> Tensor:
            images = [decoding.popleft().result() for _ in range(batch)]
            for _ in range(batch):
                submit()
            return torch.stack(images)

        for _ in range(AHEAD * batch):
            submit()
        scorer(next_batch(), ids)  # warms up
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            asked = time.perf_counter()
            images = next_batch()
            waited += time.perf_counter() - asked
            scorer(images, ids)
            given += batch
        took = time.perf_counter() - started
        pool.shutdown(wait=False, cancel_futures=True)
    return {"images_per_second": given / took, "waited": waited / took}


def _jpegs(classifier: Classifier, count: int) -> list[bytes]:
    contents = []
    for image in probe_images(count, classifier.channels, classifier.image_size):
        buffer = io.BytesIO()
        Image.fromarray((image.movedim(0, -1) * 255).byte().numpy()).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    return contents
