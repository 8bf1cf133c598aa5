"""The duplicates of some runs: found, counted within and across them, and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from regrad import formatting, storage, table
from regrad.duplicates.clusters import Clusters, Limits, Links, clusters_of
from regrad.duplicates.exact import exact_links
from regrad.duplicates.gathered import NO_DIGEST, Gathered
from regrad.duplicates.hashes import hash_pairs
from regrad.duplicates.means import Means
from regrad.errors import UsageError
from regrad.runs.scored import Ints, Run

KINDS = ("exact", "pixels", "hash", "near")  # the surest first
#: A row for each image that is in a cluster; those of a cluster together, the one that stands for it first.
DUPLICATES_SCHEMA = pa.schema(
    [
        ("cluster", pa.int64()),
        ("representative", pa.bool_()),
        ("run", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("id", pa.string()),
        ("kind", pa.string()),
        ("similarity", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Repeats:
    """What was found: rows of :data:`DUPLICATES_SCHEMA`, and the numbers of ``duplicates.json``."""

    rows: pa.Table
    numbers: dict[str, Any]


def why_not_near(runs: Sequence[Run]) -> str | None:
    """Why embeddings of these runs cannot be compared, with a remedy; None where they can be."""
    for run in runs:
        where = storage.mask(run.output)
        if not run.model.get("embedding_width"):
            return f"{where} kept no embeddings (score it with --embeddings)"
        if run.model["network"] != runs[0].model["network"]:
            return f"{where} and {storage.mask(runs[0].output)} are of different networks (score both with one)"
    return None


def find_duplicates(
    runs: Sequence[Run],
    threshold: float | None,
    distance: int = 0,
    cosine: str | None = None,
    means: Means = Means(),  # noqa: B008
) -> Repeats:
    """Images with the same bytes and, where there is a ``threshold``, those with the same pixels, those whose hashes
    differ in at most ``distance`` bits, or in some more where their embeddings are alike too, and those whose
    embeddings have at least this cosine, whitened, plain or whichever tells the images apart: see
    :mod:`regrad.duplicates.hashes` and :mod:`regrad.duplicates.near`.

    Of what has the same bytes or pixels, the first is compared for the others. What stands for a cluster is its first
    row: of the run that was named first, and in it by source and row.

    Raises:
        UsageError: a run is named twice, kept no embeddings where there is a threshold, or too many pairs are alike.
        RegradError: the storage refused or failed.
    """
    names = [storage.mask(run.output) for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name}: named twice, and all of its images would be duplicates")
    with Gathered(runs, threshold is not None) as rows:
        links = [exact_links(rows, name) for name in rows.keys]
        if threshold is not None:
            from regrad.duplicates.near import near_links  # imports torch, which the same bytes do not need

            among = _once(rows, links)
            looking = among[hash_pairs(rows.hashes[among], distance, means.each)]
            near, cosine = near_links(rows, among, looking, Limits(threshold, distance, cosine), means)
            links += near
        clusters = clusters_of(links, rows.ranks)
        asked = {"threshold": threshold, "distance": distance, "cosine": cosine} if threshold is not None else {}
        numbers = _numbers(names, rows, clusters) | {"threshold": None, "distance": None, "cosine": None, **asked}
        return Repeats(_listed(names, rows, clusters), numbers)


def write_duplicates(found: Repeats, output: str) -> None:
    """Write ``duplicates.parquet``, then ``duplicates.json``, under ``output``; earlier ones are replaced."""
    table.write_file(storage.join(output, "duplicates.parquet"), found.rows)
    content = json.dumps({"finished": formatting.now(), **found.numbers}, indent=2) + "\n"
    storage.write_atomically(storage.join(output, "duplicates.json"), content.encode())


def _once(rows: Gathered, same: Sequence[Links]) -> Ints:
    """The numbers of the rows, of those that are the same the first alone."""
    first = np.ones(int(rows.bounds[-1]), bool)
    first[np.concatenate([links.second for links in same])] = False
    return np.flatnonzero(first)


def _listed(names: Sequence[str], rows: Gathered, clusters: Clusters) -> pa.Table:
    known = rows.known_by(clusters.rows)
    columns = {
        "cluster": clusters.cluster,
        "representative": clusters.first,
        "run": [names[place] for place in rows.run_of(clusters.rows)],
        **{name: known[name] for name in ("source", "row", "id")},
        "kind": [KINDS[kind] for kind in clusters.kind],
        "similarity": clusters.similarity,
    }
    return pa.table(columns, schema=DUPLICATES_SCHEMA)


def _numbers(names: Sequence[str], rows: Gathered, clusters: Clusters) -> dict[str, Any]:
    """Counts of images: of each run, and of each that are in another run too."""
    own, spare = rows.run_of(clusters.rows), ~clusters.first
    there = np.zeros((int(clusters.cluster[-1]) + 1 if len(own) else 0, len(names)), bool)
    there[clusters.cluster, own] = True
    also = np.array([there[clusters.cluster[own == place]].sum(0) for place in range(len(names))])
    return {
        "images": int(rows.bounds[-1]),
        "clusters": len(clusters.sizes),
        "largest": int(clusters.sizes.max(initial=0)),
        "clustered": len(own),
        "spare": int(spare.sum()),
        "kinds": {name: int((clusters.kind == place).sum()) for place, name in enumerate(KINDS)},
        "without_digest": int((rows.keys["digest"] == NO_DIGEST).sum()),
        "runs": [
            {
                "run": name,
                "images": int(rows.bounds[place + 1] - rows.bounds[place]),
                "clustered": int((own == place).sum()),
                "spare": int((spare & (own == place)).sum()),
            }
            for place, name in enumerate(names)
        ],
        "across": [
            {"run": name, "also_in": other, "images": int(also[place, beside])}
            for place, name in enumerate(names)
            for beside, other in enumerate(names)
            if place != beside
        ],
    }
