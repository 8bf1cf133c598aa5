"""Evidently: what its methods for embeddings call drift, of the draws of `regrad reproduce drift`.

PYTHONPATH=CLONE python evidently_drift.py OUTPUT IMAGES DRAWS [METHOD ...]

OUTPUT is that of `regrad reproduce drift`, which must have scored what is drawn from; METHOD is all unless told. What
comes of a draw is kept beside what regrad told of it. Evidently 0.4.40, scikit-learn and pyarrow are needed, torch is
not.
"""

import resource
import sys
import time

import numpy as np
import pandas as pd
from evidently.metrics.data_drift.embedding_drift_methods import distance, mmd, model, ratio

from regrad import storage
from regrad.experiments.material.shifts import NIGHTS, SHIFTS, draw_shifted, draws_file, keep_draws, kept_draws
from regrad.experiments.power import hold_embeddings
from regrad.runs.scored import load_run

METHODS = {
    "model, AUROC > 0.55": model(),
    "model, bootstrap": model(bootstrap=True),
    "MMD > 0.015": mmd(),
    "MMD, bootstrap": mmd(bootstrap=True),
    "MMD, bootstrap at 0.95": mmd(bootstrap=True, quantile_probability=0.95),
    "ratio": ratio(),
    "distance": distance(),
    "distance, bootstrap": distance(bootstrap=True),
}

output, images, draws, *asked = sys.argv[1:]
nights = next(each for each in NIGHTS if each.images == int(images))


def hold(image_set):
    """The images of a set, as `regrad reproduce drift` scored them."""
    run = storage.join(output, "scores", "resnet20-cifar10", "seed-0", f"seen-{image_set}")
    return hold_embeddings(load_run(image_set, run), "max_probability")


def frame(drawn):
    """Its embeddings as Evidently takes them; in single precision, which halves the matrix of its kernel."""
    return pd.DataFrame(drawn.vectors.astype(np.float32))


known = hold(nights.known)
for name, shift in SHIFTS.items():
    image_set = shift.image_set(nights.known)
    others = None if image_set is None else hold(image_set)
    file, seconds = draws_file(output, nights.images, name, "evidently"), dict.fromkeys(METHODS, 0.0)
    called = kept_draws(file, nights.about)
    for number in range(min(int(draws), nights.draws(name))):
        baseline, night = draw_shifted(known, others, nights.images, shift, number)
        if number == len(called):
            called.append({})
        for method in asked or METHODS:
            if method not in called[number]:
                begun = time.process_time()
                _, drift, _ = METHODS[method](frame(night), frame(baseline))
                called[number][method] = bool(drift)
                seconds[method] += time.process_time() - begun
        keep_draws(file, nights.about, called)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    told = ", ".join(f"{method}: {spent:.1f} s" for method, spent in seconds.items() if spent)
    print(f"{images} images, {shift.title}: {told}; at most {peak:.1f} GiB so far", flush=True)
