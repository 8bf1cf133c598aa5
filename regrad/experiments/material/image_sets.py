"""Which images stand for which set: a seeded order of a pack or of torchvision's copy, cut into small shards."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image, ImageOps

from regrad import storage
from regrad.experiments.material.packs import Encoded, Packs, encode, png, shuffled
from regrad.experiments.material.proxies import KINDS, proxies
from regrad.experiments.material.shifts import CHANGES, changed

SHARD_ROWS = 50  # images that are lost at most when a run is stopped


@dataclass(frozen=True)
class ImageSet:
    """Images under one name.

    Attributes:
        title: as tables call it.
        pack: the file of :class:`regrad.experiments.material.packs.Packs` that holds it.
        made: what is made of the rows of a shard, if they are not taken as they are.
        without: classes that are left out, since another set has the same things: labels, or names of the file
            ``tinyimagenet-classes.csv`` that lies beside the pack.
    """

    title: str
    pack: str
    made: Callable[[Sequence[Encoded]], list[Encoded]] | None = None
    without: tuple[int | str, ...] = ()


# Classes of Tiny ImageNet that CIFAR-10 has too: cats, dogs, frogs and what drives on roads.
_LIKE_CIFAR10 = """bullfrog, tailed frog, Chihuahua, Yorkshire terrier, golden retriever, Labrador retriever,
    German shepherd, standard poodle, tabby, Persian cat, Egyptian cat, beach wagon, convertible, limousine,
    moving van, police van, school bus, sports car, trolleybus"""
# The same for CIFAR-100, generously read.
_LIKE_CIFAR100 = """goldfish, American alligator, boa constrictor, black widow, tarantula, snail, American lobster,
    spiny lobster, brown bear, lion, cougar, ladybug, bee, cockroach, monarch, sulphur butterfly, guinea pig, ox, bison,
    Arabian camel, chimpanzee, orangutan, African elephant, lesser panda, dugong, beer bottle, pop bottle, pill bottle,
    water jug, steel arch bridge, suspension bridge, viaduct, trolleybus, bullet train, freight car, school bus,
    moving van, police van, beach wagon, computer keyboard, lampshade, lawn mower, desk, dining table, rocking chair,
    pay-phone, tractor, projectile, barn, thatch, mushroom, orange, bell pepper, plate, espresso, alp, cliff, lakeside,
    stopwatch"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


def _inverted(rows: Sequence[Encoded]) -> list[Encoded]:
    """Black and white change places: strokes are white on black, as in MNIST."""
    return [(key, png(ImageOps.invert(Image.open(io.BytesIO(data)).convert("L"))), label) for key, data, label in rows]


IMAGE_SETS = {
    "mnist": ImageSet("MNIST", "mnist-test.parquet"),
    "fmnist": ImageSet("FMNIST", "fmnist-test.parquet"),
    "omniglot": ImageSet("Omniglot", "omniglot-evaluation.parquet", made=_inverted),
    "cifar10": ImageSet("C10", "cifar10-test.parquet"),
    "cifar10-train": ImageSet("C10, training images", "cifar10-train.parquet"),
    "cifar100": ImageSet("C100", "cifar100-test.parquet"),
    "svhn": ImageSet("SVHN", "svhn-test.parquet"),
    "svhn-held": ImageSet("SVHN", "svhn-held.parquet"),
    "imagenet": ImageSet("ImageNet", "imagenet-samples.parquet"),
    "textures-not-cobwebbed": ImageSet("Textures", "textures.parquet", without=(6,)),
    "lsun": ImageSet("LSUN", "lsun-test.parquet"),
    "cifar100-not-cifar10": ImageSet("C100", "cifar100-test.parquet", without=(58,)),
    "cifar10-not-cifar100": ImageSet("C10", "cifar10-test.parquet", without=(1, 9)),
    "tinyimagenet-not-cifar10": ImageSet("TinyImageNet", "tinyimagenet-val.parquet", without=_names(_LIKE_CIFAR10)),
    "tinyimagenet-not-cifar100": ImageSet(
        "TinyImageNet",
        "tinyimagenet-val.parquet",
        without=_names(_LIKE_CIFAR100),
    ),
}
IMAGE_SETS |= {
    f"{name}-{kind}": replace(IMAGE_SETS[name], title=f"{IMAGE_SETS[name].title}, {kind}", made=partial(proxies, kind))
    for name in ("mnist", "fmnist", "cifar10", "cifar100", "svhn", "imagenet")
    for kind in KINDS
}
IMAGE_SETS |= {
    f"{name}-{change}": replace(IMAGE_SETS[name], made=partial(changed, change))
    for name in ("cifar10", "cifar10-train")
    for change in CHANGES
}


def shards(name: str, packs: Packs, folder: str, images: int) -> list[str]:
    """URIs of Parquet shards with the first ``images`` images of a set, in a seeded order; written where missing.

    More images are the same ones and then others, so what was scored of the first is not scored again.

    Args:
        name: of :data:`IMAGE_SETS`.
        packs: where the images come from.
        folder: where the shards of all sets go.
        images: how many; rounded up to whole shards, or all there are.

    Raises:
        UsageError: the pack is not there.
    """
    place = storage.join(folder, name)
    held = set(storage.list_files(place, ".parquet"))
    names = [f"part-{number:03}.parquet" for number in range(-(-images // SHARD_ROWS))]
    if missing := [part for part in names if part not in held]:
        made = IMAGE_SETS[name].made
        left_out = _labels(IMAGE_SETS[name].without, packs)
        rows = [row for row in packs.rows(IMAGE_SETS[name].pack) if row[2] not in left_out]
        rows = shuffled(rows)
        for part in missing:
            start = names.index(part) * SHARD_ROWS
            chosen = rows[start : start + SHARD_ROWS]
            if chosen:
                chosen = made(chosen) if made else chosen
                storage.write_atomically(storage.join(place, part), encode(chosen))
        held = set(storage.list_files(place, ".parquet"))
    return [storage.join(place, part) for part in names if part in held]


def _labels(classes: tuple[int | str, ...], packs: Packs) -> set[int]:
    """The labels of ``classes``; a name is that of its first synonym."""
    if not any(isinstance(item, str) for item in classes):
        return {int(item) for item in classes}
    text = storage.read_bytes(packs.find("tinyimagenet-classes.csv")).decode()
    known = {row["name"].split(",")[0]: int(row["label"]) for row in csv.DictReader(io.StringIO(text))}
    return {known[str(item)] for item in classes}
