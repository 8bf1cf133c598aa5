"""Damaged and hostile shards, each beside what must become of its rows."""

from __future__ import annotations

import os
import pickle
import struct
import tarfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tests.bad_images import Poison
from tests.shards import Row, digits, write_tar

GOOD = digits(12)
KEYS = [name.removesuffix(".png") for name, *_ in GOOD]
NAMES = [name for name, *_ in GOOD]
PNG = GOOD[0][1]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 44\n"
PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>" * 40
Fate = tuple[str, int | None, str]  # stage, row and pattern of the reason of a quarantined row


@dataclass(frozen=True)
class Case:
    """A shard, the ids that must be scored, and the rows that must not."""

    file: str
    write: Callable[[Path], object]
    scored: Sequence[str]
    quarantined: Sequence[Fate] = ()


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    """A member as it lies in a tar; ``fields`` of the header may lie, ``size`` as the field's own 12 bytes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    size = fields.pop("size", None)
    for field, value in fields.items():
        setattr(info, field, value)
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    if size is not None:
        header[124:136] = size
    return sealed(header) + content + bytes(-len(content) % 512)


def sealed(header: bytearray) -> bytes:
    """A tar header with its checksum made right."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def octal(size: int) -> bytes:
    """A size as a tar header has it."""
    return b"%011o\0" % size


def good_members(first: int, last: int) -> bytes:
    """Sound members of the samples ``first`` to ``last - 1``."""
    return b"".join(
        member(f"{name.removesuffix('.png')}.{kind}", content)
        for name, image, label in GOOD[first:last]
        for kind, content in (("png", image), ("cls", str(label).encode()))
    )


def raw(*parts: bytes, end: bytes = bytes(1024)) -> Callable[[Path], object]:
    """Writes a tar of these parts."""
    return lambda path: path.write_bytes(b"".join(parts) + end)


def changed(write: Callable[[Path], object], change: Callable[[bytearray], bytes | bytearray]) -> Any:
    """Writes a sound file, and damages it."""

    def writer(path: Path) -> None:
        write(path)
        path.write_bytes(change(bytearray(path.read_bytes())))

    return writer


def tar_of(rows: Sequence[Row], mode: str = "w") -> Callable[[Path], object]:
    """Writes a sound tar."""
    return lambda path: write_tar(path, rows, mode)


def zstandard(content: bytes | bytearray) -> bytes:
    """Compressed, in two frames, as what works on several cores does it."""
    half = len(content) // 2
    return b"".join(pa.compress(bytes(part), "zstd", asbytes=True) for part in (content[:half], content[half:]))


def overwritten(start: int, count: int, value: bytes = b"\xff") -> Callable[[bytearray], bytearray]:
    """Replaces a range of the file."""

    def change(content: bytearray) -> bytearray:
        content[start : start + count] = value * count
        return content

    return change


def inside(*members: bytes) -> Callable[[Path], object]:
    """Writes a tar of three sound samples, these members, and a sound sample."""
    return raw(good_members(0, 3), *members, good_members(3, 4))


def stops(file: str, write: Callable[[Path], object], row: int, why: str = "") -> Case:
    """A tar that cannot be read from ``row`` on."""
    return Case(file, write, KEYS[:row], [("read", None, f"the tar cannot be read from row {row} on: .*{why}")])


def tars() -> list[Case]:
    """Each damage that a tar can have. Where a sample may go on into the damage, it is lost with the rest."""
    whole, zipped = tar_of(GOOD), tar_of(GOOD, "w:gz")
    place = 4 * 6 * 512  # each sample of `whole` has three members of a header and a block: here row 4 begins
    name, pax, negative = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, b"\xff" * 12
    sparse = bytearray(member("x.png", kind=tarfile.GNUTYPE_SPARSE)[:512])
    sparse[483:495] = octal(2**32)
    overlap = bytearray(sparse)
    for number, value in enumerate((0, 9, 0, 9)):
        overlap[386 + 12 * number : 398 + 12 * number] = octal(value)
    kinds = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    links = [member(f"{kind.decode()}.png", kind=kind, linkname="/etc/passwd") for kind in kinds]
    links_refused = (
        "'1.png' is a link, .*--hard-dereference",
        "a link",
        "'3.png' is no regular file",
        "no regular file",
    )
    first = f"{KEYS[0]}.png"
    noise = member("x.bin", np.random.default_rng(0).bytes(300_000))  # which no compression makes smaller
    paths = [member("/etc/shadow.png", PNG), member("../../up.png", PNG), member("folder/", kind=tarfile.DIRTYPE)]
    pickles = [member(f"{KEYS[2]}.{end}", pickle.dumps(Poison())) for end in ("pyd", "pickle", "pkl")]
    return [
        stops("cut.tar", changed(whole, lambda content: content[: place + 600]), 4),
        stops("no-end-mark.tar", raw(good_members(0, 3), end=b""), 3, "ends without a tar's end mark.*append 1,024"),
        stops("not-filled-up.tar", raw(good_members(0, 3)[:-511], end=b""), 3, "ends without a tar's end mark"),
        stops("more-after-the-end.tar", raw(good_members(0, 3), bytes(1024), b"more" * 200), 3, "no tar.*cut it off"),
        stops("header.tar", changed(whole, overwritten(place, 500)), 3, "damaged member header"),
        refused("zero-bytes.tar", lambda path: path.write_bytes(b""), "not readable as a tar: an empty file"),
        refused("pointer.tar", lambda path: path.write_bytes(POINTER), "not readable as a tar: a Git LFS pointer"),
        refused("page.tar", lambda path: path.write_bytes(PAGE), "not readable as a tar: a web page"),
        stops("text.tar", raw(b"404: Not Found\n" * 99), 0),
        stops("cut.tar.gz", changed(zipped, lambda content: content[: len(content) // 2]), 4),
        stops("damaged.tar.gz", changed(zipped, overwritten(900, 9)), 4),
        stops("size-too-large.tar", inside(member("x.png", PNG, size=octal(600))), 3, "damaged member header"),
        stops("size-2-gib.tar", inside(member("x.png", PNG, size=octal(2**31))), 3, "it ends inside a member"),
        stops(
            "size-2-pib.tar", inside(member("x.txt", PNG, size=b"\x80" + (2**51).to_bytes(11))), 3, "inside a member"
        ),
        stops("size-negative.tar", inside(member("x.png", PNG, size=negative)), 2, "claims -1 bytes"),
        stops("name-negative.tar", inside(member("x", b"x", name, size=negative)), 2, "claims -1 bytes"),
        stops("name-huge.tar", inside(member("x", b"x", pax, size=octal(2**30))), 2, "1073741824 bytes for a name"),
        stops("pax-negative.tar", inside(member("x", b"13 size=-512\n", pax)), 2, "claims -512 bytes"),
        stops("names-in-names.tar", inside(member("x", b"x", name) * 3000), 2, "damaged member header"),
        Case("no-members.tar", raw(), [], [("list", None, "no image in the tar")]),
        Case("readme-only.tar", raw(member("README", b"hello")), [], [("list", None, "no image in the tar")]),
        Case(
            "words.tar",
            raw(member("x.txt", b"1")),
            [],
            [("list", None, "no image in the tar; left out 1: 1 type .*txt")],
        ),
        Case(
            "tars.tar", raw(member("n01.tar", b"1")), [], [("list", None, "no image .*tar; unpack it and give the fol")]
        ),
        Case("no-image.tar", raw(member("x.cls", b"1")), [], [("read", 0, "no image member under .*; it has cls")]),
        Case("renamed-gz.tar", tar_of(GOOD[:3], "w:gz"), KEYS[:3]),
        Case("zstandard.tar.zst", changed(tar_of(GOOD[:3]), zstandard), KEYS[:3]),
        stops(
            "cut.tar.zst", changed(changed(inside(noise), zstandard), lambda content: content[:200_000]), 3, "Truncated"
        ),
        Case("no-key.tar", inside(member("a/.png", PNG)), KEYS[:4], [("read", 2, "'a/.png' is a name without a key")]),
        Case("same-name-next.tar", inside(member(first, PNG) * 2), [*KEYS[:4], *_again(3, 4)]),
        Case("same-name.tar", raw(member(first, PNG), member(first, PNG)), [KEYS[0], *_again(1)]),
        Case("size-too-small.tar", inside(member("x.png", PNG, size=octal(20))), KEYS[:4], [("decode", 3, ".")]),
        Case("sparse.tar", inside(sealed(sparse)), KEYS[:4], [("read", 3, "'x.png' claims 4294967296 bytes")]),
        stops("sparse-overlap.tar", inside(sealed(overlap)), 2, "a piece of a sparse file at 0, of 9 bytes"),
        Case("links.tar", inside(*links), KEYS[:4], [("read", row, why) for row, why in enumerate(links_refused, 3)]),
        Case("paths.tar", inside(*paths), [*KEYS[:4], "/etc/shadow", "../../up"]),
        Case("pickles.tar", inside(*pickles), KEYS[:4]),
        Case("odd-header.tar", inside(member("x", b"17 mtime=1111111\n", pax)), KEYS[:4]),
        Case("deep-json.tar", inside(member(f"{KEYS[2]}.json", b'{"label": ' + b"[" * 100_000)), KEYS[:4]),
        Case("a-bad-image.tar", inside(member("x.png", b"text")), KEYS[:4], [("decode", 3, "not an image")]),
    ]


def _again(*rows: int) -> list[str]:
    """The ids of these rows, which have the name of the first one."""
    return [f"{KEYS[0]} (row {row})" for row in rows]


def table(images: Any = None, ids: Any = None, labels: Any = None, **columns: Any) -> pa.Table:
    """The columns of a sound file, or these."""
    sound = {"id": NAMES, "image": [image for _, image, _ in GOOD], "label": [label for *_, label in GOOD]}
    given = {"id": ids, "image": images, "label": labels}
    return pa.table(sound | {name: column for name, column in given.items() if column is not None} | columns)


def parquet_of(content: pa.Table, **options: Any) -> Callable[[Path], object]:
    """Writes ``content``, four rows a row group."""
    return lambda path: pa.parquet.write_table(content, path, row_group_size=4, **options)


def damaged_group(whole: bool) -> Callable[[Path], object]:
    """Writes a file whose second row group, or its last image page alone, is damaged."""

    def writer(path: Path) -> None:
        parquet_of(table(), use_dictionary=False, data_page_size=1, compression="none", write_batch_size=1)(path)
        chunk = pa.parquet.ParquetFile(path).metadata.row_group(1).column(1)
        content, begin, size = bytearray(path.read_bytes()), chunk.data_page_offset, chunk.total_compressed_size
        part = size if whole else 250
        content[begin + size - part : begin + size] = b"\xff" * part
        path.write_bytes(content)

    return writer


def claiming(rows: int) -> Callable[[bytearray], bytearray]:
    """Makes the footer claim another number of rows."""

    def zigzag(value: int) -> bytes:
        value, out = 2 * value, bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes(out) + bytes([value])

    def change(content: bytearray) -> bytearray:
        footer = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
        place = content.index(b"\x16\x18", footer)  # the field num_rows (an i64), and 12
        body = content[footer:place] + b"\x16" + zigzag(rows) + content[place + 2 : -8]
        return content[:footer] + body + struct.pack("<I", len(body)) + b"PAR1"

    return change


def refused(file: str, write: Callable[[Path], object], why: str) -> Case:
    """A file of which not one row can be read."""
    return Case(file, write, [], [("list", None, why)])


def parquets() -> list[Case]:
    """Each damage that a Parquet file can have, and what only looks like one."""
    sound, images = parquet_of(table()), pa.array([image for _, image, _ in GOOD])
    structs: list[Any] = [{"bytes": image, "path": name} for name, image, _ in GOOD]
    structs[1:3] = [{"bytes": None, "path": "photos/cat.jpg"}, None]
    null = "the image is null"
    nulls = [("read", 1, f"{null}; its path 'photos/cat.jpg' is not followed"), ("read", 2, null)]
    latin = pa.Array.from_buffers(pa.string(), 12, pa.array([b"caf\xe9%d" % row for row in range(12)]).buffers())
    dates = pa.array([10**7, *range(1, 12)], pa.int32()).cast(pa.date32())  # the first is later than Python's last
    group = [("read", row, "row group 1 cannot be read from row 4 on: ") for row in range(4, 8)]
    left, broken = [*NAMES[:4], *NAMES[8:]], "not readable as Parquet: .*; write the file again"
    twice = pa.table([images] * 2, names=["image"] * 2)
    numbers = [f"(row {row})" for row in range(12)]
    same = [f"{NAMES[10]} (row {row})" for row in (10, 11)]
    days = [str(date(1970, 1, 1 + row)) for row in range(1, 12)]
    return [
        Case("large-binary.parquet", parquet_of(table(images.cast(pa.large_binary()))), NAMES),
        Case("binary-view.parquet", parquet_of(table(images.cast(pa.binary_view()))), NAMES),
        Case("dictionary.parquet", parquet_of(table(images.dictionary_encode())), NAMES),
        Case("row-group.parquet", damaged_group(whole=True), left, group),
        Case("page.parquet", damaged_group(whole=False), left, group),
        refused("cut.parquet", changed(sound, lambda content: content[:-40]), broken),
        refused("zero-bytes.parquet", lambda path: path.write_bytes(b""), "not readable as Parquet: an empty file"),
        refused(
            "pointer.parquet", lambda path: path.write_bytes(POINTER), "not readable as Parquet: a Git LFS pointer"
        ),
        refused("web-page.parquet", lambda path: path.write_bytes(PAGE), "not readable as Parquet: a web page"),
        refused("text.parquet", lambda path: path.write_bytes(b"404: Not Found\n"), broken),
        refused("more-rows.parquet", changed(sound, claiming(13)), "13 rows in all, but 12 in its row groups; write"),
        refused("billions.parquet", changed(sound, claiming(2**40)), "1099511627776 rows in all"),
        refused("captions.parquet", parquet_of(pa.table({"word": ["cat"]})), "no image column: .*--image-column"),
        refused("types.parquet", parquet_of(table(NAMES)), "'image' is string, not encoded images"),
        refused("twice.parquet", parquet_of(twice), "more than one column 'image'"),
        Case("null-images.parquet", parquet_of(table([None, *images[1:].to_pylist()])), NAMES[1:], [("read", 0, null)]),
        Case("structs.parquet", parquet_of(pa.table({"photo": structs})), [NAMES[0], *NAMES[3:]], nulls),
        Case("null-ids.parquet", parquet_of(table(ids=pa.nulls(12, pa.string()))), numbers),
        Case("byte-ids.parquet", parquet_of(table(ids=latin)), [f"caf\\xe9{row}" for row in range(12)]),
        Case("date-ids.parquet", parquet_of(table(ids=dates)), ["(row 0)", *days]),
        Case("same-ids.parquet", parquet_of(table(ids=[*NAMES[:11], NAMES[10]])), [*NAMES[:10], *same]),
        Case("null-labels.parquet", parquet_of(table(labels=pa.nulls(12, pa.int32()))), NAMES),
        Case("float-labels.parquet", parquet_of(table(labels=[0.5] * 12)), NAMES),
        Case("text-labels.parquet", parquet_of(table(labels=["cat"] * 12)), NAMES),
        Case("large-labels.parquet", parquet_of(table(labels=pa.array([2**63] * 12, pa.uint64()))), NAMES),
    ]


def write_bad_folder(path: Path) -> str:
    """Images beside what is called like one and is none."""
    path.mkdir(parents=True)
    for name, image, _ in GOOD[:2]:
        (path / name.replace("/", "-")).write_bytes(image)
    (path / "empty.png").write_bytes(b"")
    (path / "sub.png").mkdir()  # a folder: its images would count, it does not
    (path / "to-nothing.png").symlink_to("nowhere")
    (path / "to-itself.png").symlink_to("to-itself.png")
    (path / "round").symlink_to(path)
    (path / "a::b.png").write_bytes(PNG)
    os.mkfifo(path / "pipe.png")
    (path / "zero.png").symlink_to("/dev/zero")
    with open(os.fsencode(path) + b"/caf\xe9.png", "wb") as file:
        file.write(PNG)
    return str(path)


FOLDER = Case(
    "images",
    write_bad_folder,
    [*(name.replace("/", "-") for name in NAMES[:2]), "a::b.png", "caf\\udce9.png"],
    [
        ("decode", 4, "empty file"),
        ("read", 5, "not a regular file"),
        ("read", 6, "Too many levels of symbolic links"),
        ("read", 7, "gone since it was listed, or it is a link to nothing"),
        ("read", 8, "not a regular file"),
    ],
)


def write_all(folder: Path) -> list[str]:
    """Every case under ``folder``, and the inputs to give."""
    shards = folder / "shards"
    shards.mkdir(parents=True)
    for case in [*tars(), *parquets()]:
        case.write(shards / case.file)
    write_bad_folder(folder / FOLDER.file)
    return [str(shards), str(folder / FOLDER.file)]


def cases() -> Iterable[Case]:
    """All of them."""
    return [*tars(), *parquets(), FOLDER]
