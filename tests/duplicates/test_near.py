"""Near pairs against all cosines in float64, what cells miss of them, and that it does not matter who compares."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from regrad.cluster.carry import carrying_out
from regrad.duplicates import cells, gathered, near
from regrad.duplicates.clusters import PLAIN, WHITENED, Limits, Links
from regrad.duplicates.gathered import Gathered
from regrad.duplicates.means import Means, Task
from regrad.duplicates.spread import lay_down
from regrad.errors import UsageError
from tests.duplicates.embedded import Array, embedded
from tests.services import Bucket

Pairs = set[tuple[int, int]]
NO_PAIRS = np.empty((2, 0), np.int64)


def planted(rows: int, width: int, copies: int, noise: float, seed: int = 0) -> tuple[Array, Array]:
    """Embeddings in classes, the last ``copies`` of them those of rows before with noise; and these rows."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(20, width))
    vectors = np.maximum(3 * centres[draw.integers(0, 20, rows)] + draw.normal(size=(rows, width)), 0)
    origins = draw.choice(rows - copies, copies, replace=False)
    vectors[rows - copies :] = vectors[origins] * (1 + noise * draw.normal(size=(copies, width)))
    return vectors.astype(np.float16), origins


def cosines_of(vectors: Array) -> Array:
    """(n, n) whitened ones, by the formula."""
    x = vectors.astype(np.float64)
    rows, width = x.shape
    values, directions = np.linalg.eigh(x.T @ x / rows)
    share = min(1.0, max(1e-3, 0.1 * width / rows))
    white = x @ directions / np.sqrt((1 - share) * values + share * values.mean())
    white /= np.maximum(np.linalg.norm(white, axis=1, keepdims=True), 1e-12)
    cosines: Array = white @ white.T
    return cosines


def reference(vectors: Array, threshold: float) -> Pairs:
    """All pairs at once."""
    first, second = np.nonzero(np.triu(cosines_of(vectors) >= threshold, 1))
    return {*zip(first.tolist(), second.tolist(), strict=True)}


Find = Callable[..., list[Links]]


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """:func:`near.near_links` of an output of these vectors and hashes."""

    def of(
        vectors: Array,
        limits: Limits,
        among: Array | None = None,
        looking: Array = NO_PAIRS,
        hashes: Array | None = None,
        means: Means = Means(),  # noqa: B008
    ) -> list[Links]:
        folder = tmp_path / f"run-{len([*tmp_path.iterdir()])}"
        with Gathered([embedded(folder, vectors, hashes, 1 + len(vectors) // 6)], True) as rows:
            numbers = np.arange(len(vectors)) if among is None else among
            links, cosine = near.near_links(rows, numbers, looking, limits, means)
            assert cosine == limits.cosine
            return links

    return of


def whitened(threshold: float, distance: int = 0) -> Limits:
    return Limits(threshold, distance, WHITENED)


def pairs_of(links: Links) -> Pairs:
    """As a set, in which each is once."""
    pairs = [*zip(links.first.tolist(), links.second.tolist(), strict=True)]
    assert all(first < second for first, second in pairs)
    assert len(pairs) == len({*pairs})
    return {*pairs}


def near_pairs(found: list[Links], threshold: float) -> Pairs:
    alike, links = found
    assert not len(alike.first)
    assert (links.similarity >= threshold - 1e-6).all()
    assert (links.similarity <= 1).all()
    return pairs_of(links)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, pieces and groups of which some hundred rows make several, and cells for all but a hundred."""
    monkeypatch.setattr(near, "_BLOCK", 70)
    monkeypatch.setattr(near, "_OTHERS", 110)
    monkeypatch.setattr(cells, "ALL_PAIRS", 100)
    monkeypatch.setattr(cells, "_GROUP_BYTES", 2**13)
    monkeypatch.setattr(gathered, "_PIECE_BYTES", 2**13)


@pytest.mark.parametrize("threshold", [0.6, 0.9])
def test_all_pairs_are_those_of_the_formula(find: Find, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_BLOCK", 70)
    monkeypatch.setattr(near, "_OTHERS", 110)
    vectors, _ = planted(500, 24, 60, 0.1)
    # What is within rounding of the threshold may be on either side.
    surely, perhaps = reference(vectors, threshold + 2e-3), reference(vectors, threshold - 2e-3)
    found = near_pairs(find(vectors, whitened(threshold)), threshold)
    assert len(surely) >= 40
    assert surely <= found <= perhaps


def test_cells_miss_few(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, origins = planted(4000, 32, 400, 0.1)
    wanted = near_pairs(find(vectors, whitened(0.9)), 0.9)
    assert {*zip(origins.tolist(), range(3600, 4000), strict=True)} & wanted
    monkeypatch.setattr(cells, "ALL_PAIRS", 100)
    monkeypatch.setattr(cells, "_GROUP_BYTES", 2**15)
    compared: list[int] = []
    fitted: list[cells.Cells] = []
    real, fit = near._alike, cells.fit_cells
    monkeypatch.setattr(near, "_alike", lambda w, a, b, t: compared.append(len(a) * len(b)) or real(w, a, b, t))
    monkeypatch.setattr(near, "fit_cells", lambda *how: fitted.append(fit(*how)) or fitted[0])
    found = near_pairs(find(vectors, whitened(0.9)), 0.9)
    nearest = fitted[0].nearest(cells.directions(vectors, fitted[0].transform)).tolist()
    assert found == {(a, b) for a, b in wanted if nearest[a][0] in nearest[b] or nearest[b][0] in nearest[a]}
    assert len(found) >= 0.98 * len(wanted) > 300
    assert sum(compared) < 4000 * 4000 / 10


def test_rows_that_are_not_asked_for_are_not_compared(find: Find) -> None:
    vectors, origins = planted(300, 16, 30, 0.02)
    among = np.arange(0, 300, 2)
    found = near_pairs(find(vectors, whitened(0.9), among), 0.9)
    assert found
    assert all(a % 2 == b % 2 == 0 for a, b in found)
    assert {(int(a), 270 + b) for b, a in enumerate(origins) if a % 2 == b % 2 == 0} <= found


@pytest.mark.usefixtures("small")
def test_of_pictures_that_look_alike_those_stay_that_do_so_surely_or_are_alike_to_the_network(find: Find) -> None:
    vectors, origins = planted(300, 16, 30, 0.02)
    hashes = np.random.default_rng(0).integers(0, 2**63, 300, dtype=np.uint64)
    hashes[270:] = hashes[origins] ^ np.uint64(0b111111000000)  # three times as many bits as are sure
    hashes[299] ^= np.uint64(1 << 40)  # one more
    hashes[6], hashes[7] = hashes[5] ^ np.uint64(0b111), hashes[5] ^ np.uint64(0b11)  # other pictures
    cosines = cosines_of(vectors)
    assert max(cosines[5, 6], cosines[5, 7]) < near.LEAST
    looking = np.array([[5, 0], [7, 270]])
    alike, _ = find(vectors, whitened(0.99, 2), looking=looking, hashes=hashes)
    copies = {*zip(origins.tolist(), range(270, 299), strict=False)}
    assert {*zip(alike.first.tolist(), alike.second.tolist(), strict=True)} == copies | {(5, 7), (0, 270)}
    np.testing.assert_allclose(alike.similarity, cosines[alike.first, alike.second].clip(0), atol=2e-3)


def test_directions_in_which_images_differ_little_count_as_much(find: Find) -> None:
    """Two kinds of images, far apart: within one, all cosines are high, and only whitened ones tell who is alike."""
    draw = np.random.default_rng(1)
    kinds = np.eye(16)[:2][draw.integers(0, 2, 400)] * 50
    vectors = (kinds + np.abs(draw.normal(size=(400, 16)))).astype(np.float16)
    vectors[399] = vectors[0] * np.float16(1.5)
    unit = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    assert np.median(unit @ unit[0]) > 0.9 or np.quantile(unit @ unit[0], 0.6) > 0.99
    assert near_pairs(find(vectors, whitened(0.97)), 0.97) == {(0, 399)}


def test_the_plain_cosine_is_that_of_the_embeddings(find: Find) -> None:
    vectors, _ = planted(300, 16, 30, 0.1)
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    links = find(vectors, Limits(0.9, cosine=PLAIN))[1]
    np.testing.assert_allclose(links.similarity, (unit[links.first] * unit[links.second]).sum(1), atol=1e-3)
    wanted = int((np.triu(unit @ unit.T, 1) >= 0.901).sum())
    assert len(pairs_of(links)) >= wanted > len(near_pairs(find(vectors, whitened(0.9)), 0.9))


def test_of_a_few_rows_the_plain_cosine_counts(find: Find) -> None:
    vectors = np.array([[1, 0.01, 0, 0], [1, 0, 0.01, 0], [0, 0, 0, 1], [0] * 4], np.float16)
    assert near_pairs(find(vectors, whitened(0.5)), 0.5) == {(0, 1)}


def test_no_rows_and_rows_of_nothing_are_alike_to_none(find: Find) -> None:
    nothing = np.zeros((5, 4), np.float16)
    assert near_pairs(find(nothing, whitened(0.5)), 0.5) == set()
    assert near_pairs(find(nothing, whitened(0.5), np.empty(0, np.int64)), 0.5) == set()


@pytest.mark.parametrize(
    ("cosine", "bits", "distance", "alike"),
    [
        (0.69, 0, 4, False),
        (0.7, 8, 4, True),
        (0.7, 9, 4, False),
        (0.8, 12, 4, True),
        (0.79, 12, 4, False),
        (0.99, 13, 4, False),
        (0.99, 3, 1, True),
        (0.99, 0, 0, False),
    ],
)
def test_the_less_a_picture_looks_alike_the_more_its_embedding_must_be(
    cosine: float, bits: int, distance: int, alike: bool
) -> None:
    assert near._also(np.float32([cosine]) + 1e-6, np.array([bits]), whitened(0.9, distance)).tolist() == [alike]


@pytest.mark.parametrize("limit", ["task", "all"])
def test_too_many_pairs_are_refused(find: Find, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _ = planted(300, 16, 100, 0.01)
    message = r"^more than \d+ pairs of images are as alike as --threshold 0.9 asks; raise it"
    if limit == "all":  # each task has few
        monkeypatch.setattr(cells, "ALL_PAIRS", 50)
        monkeypatch.setattr(cells, "_GROUP_BYTES", 2**10)
    monkeypatch.setattr(near, "MOST_LINKS", {"task": 50, "all": 90}[limit])
    with pytest.raises(UsageError, match=message):
        find(vectors, whitened(0.9))


@pytest.mark.usefixtures("small")
def test_it_does_not_matter_which_task_is_done_first(find: Find) -> None:
    vectors, _ = planted(500, 16, 60, 0.05)

    def backwards(function: Callable[[Task], Task], tasks: Iterable[Task]) -> Iterator[Task]:
        yield from [function(task) for task in tasks][::-1]

    forwards, other = (find(vectors, whitened(0.3), means=means)[1] for means in (Means(), Means(backwards)))
    assert pairs_of(forwards) == pairs_of(other)
    assert len(forwards.first) > 50


def dying(task: Task) -> Task:
    """What the function of the task gives; the first process that laid something down is killed before it says so."""
    answer: Task = task["function"](task)
    mark = Path(task["mark"])
    if task["function"] is lay_down and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return answer


@pytest.mark.usefixtures("small", "ray_session")
def test_it_is_the_same_on_ray_and_in_a_store_though_a_worker_is_killed(
    find: Find, tmp_path: Path, bucket: Bucket
) -> None:
    vectors, origins = planted(500, 16, 60, 0.05)
    hashes = np.zeros(500, np.uint64)
    looking = np.stack([origins[:9], np.arange(440, 449)])
    done: list[str] = []

    def on_ray(function: Callable[[Task], Task], tasks: Iterable[Task]) -> Iterator[Task]:
        named = {"function": function, "mark": str(tmp_path / "mark")}
        for answer in each(dying, ({**task, **named} for task in tasks)):
            done.append(function.__name__)
            yield answer

    limits = whitened(0.8, 2)
    here = find(vectors, limits, looking=looking, hashes=hashes)
    with carrying_out("of the tests", 2) as each:
        there = find(vectors, limits, looking=looking, hashes=hashes, means=Means(on_ray, f"{bucket.uri}/out"))
    for some, others in zip(here, there, strict=True):
        order, other_order = (np.lexsort((links.second, links.first)) for links in (some, others))
        assert np.array_equal(some.first[order], others.first[other_order])
        assert np.array_equal(some.second[order], others.second[other_order])
        np.testing.assert_allclose(some.similarity[order], others.similarity[other_order], atol=1e-6)
    assert min(len(here[0].first), len(here[1].first)) > 50
    assert (tmp_path / "mark").exists()
    assert min(done.count(name) for name in ("draw_sample", "lay_down", "compare_group")) >= 2
    assert not any(bucket.folder.rglob("*piece-*"))
