"""Seeded damage to real files: blind, and aimed at the headers of tar, PNG, JPEG, GIF, WebP and Parquet."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable

import numpy as np

from tests.bad_shards import sealed

Draw = np.random.Generator
Mutation = Callable[[bytearray, Draw], bytearray]
ODD = (0, 1, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def _place(content: bytearray, draw: Draw) -> int:
    return int(draw.integers(0, max(len(content), 1)))


def _range(content: bytearray, draw: Draw) -> slice:
    start = _place(content, draw)
    return slice(start, start + int(2 ** draw.uniform(0, 12)))


def flip_bits(content: bytearray, draw: Draw) -> bytearray:
    for _ in range(int(2 ** draw.uniform(0, 4))):
        if content:
            content[_place(content, draw)] ^= 1 << int(draw.integers(8))
    return content


def truncate(content: bytearray, draw: Draw) -> bytearray:
    return content[: _place(content, draw)]


def delete(content: bytearray, draw: Draw) -> bytearray:
    del content[_range(content, draw)]
    return content


def repeat(content: bytearray, draw: Draw) -> bytearray:
    part = _range(content, draw)
    content[part.start : part.start] = content[part] * int(2 ** draw.uniform(0, 5))
    return content


def splice(content: bytearray, draw: Draw) -> bytearray:
    part = bytes(content[_range(content, draw)])
    start = _place(content, draw)
    content[start : start + len(part)] = part
    return content


def noise(content: bytearray, draw: Draw) -> bytearray:
    part = _range(content, draw)
    content[part] = draw.bytes(len(content[part]))
    return content


def odd_number(content: bytearray, draw: Draw) -> bytearray:
    """Writes a number that programs trip over, in either byte order."""
    code = str(draw.choice([">H", "<H", ">I", "<I"]))
    value = ODD[int(draw.integers(len(ODD)))] & (0xFFFF if code[1] == "H" else 0xFFFFFFFF)
    start = _place(content, draw)
    number = struct.pack(code, value)
    content[start : start + len(number)] = number
    return content


def tar_header(content: bytearray, draw: Draw) -> bytearray:
    """Changes a field of a member's header, and makes the checksum right again."""
    starts = [at for at in range(0, len(content) - 511, 512) if content[at + 257 : at + 262] == b"ustar"]
    if not starts:
        return flip_bits(content, draw)
    at = starts[int(draw.integers(len(starts)))]
    header = content[at : at + 512]
    fields = {"name": (0, 100), "size": (124, 136), "kind": (156, 157), "link": (157, 257), "prefix": (345, 500)}
    start, stop = fields[str(draw.choice(list(fields)))]
    choice = int(draw.integers(4))
    if choice == 0:
        header[start:stop] = draw.bytes(stop - start)
    elif choice == 1:
        header[124:136] = b"%011o\0" % (ODD[int(draw.integers(len(ODD)))] & 0o77777777777)
    elif choice == 2:
        header[156:157] = bytes([draw.choice(list(b"01234567xgLKSDVMNA\0"))])
    else:
        header[124:136] = draw.choice([b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\x09", b"\x80" + b"\xff" * 11])
    content[at : at + 512] = sealed(header)
    return content


def png_chunk(content: bytearray, draw: Draw) -> bytearray:
    """Changes a chunk's content or length, or the picture's size and type, and makes the checksum right again."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        chunks.append(at)
        at += 12 + struct.unpack(">I", content[at : at + 4])[0]
    if not chunks:
        return flip_bits(content, draw)
    at = chunks[int(draw.integers(len(chunks)))] if draw.random() < 0.5 else chunks[0]
    size = struct.unpack(">I", content[at : at + 4])[0]
    body = content[at + 8 : at + 8 + size]
    if at == chunks[0] and draw.random() < 0.5:
        place = int(draw.integers(2)) * 4
        body[place : place + 4] = struct.pack(">I", ODD[int(draw.integers(len(ODD)))])
    else:
        body = noise(body, draw) if draw.random() < 0.5 else repeat(body, draw)
    kind = bytes(content[at + 4 : at + 8])
    content[at : at + 12 + size] = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + bytes(body)))
    )
    return content


def jpeg_segment(content: bytearray, draw: Draw) -> bytearray:
    """Changes a segment's length, a frame's size or a table; or repeats a segment."""
    marks = [found.start() for found in re.finditer(rb"\xff[\x01-\xfe](?=..)", content, re.DOTALL)]
    if not marks:
        return flip_bits(content, draw)
    at = marks[int(draw.integers(len(marks)))]
    choice = int(draw.integers(3))
    if choice == 0:
        content[at + 2 : at + 4] = struct.pack(">H", ODD[int(draw.integers(10))] & 0xFFFF)
    elif choice == 1:
        place = at + 4 + int(draw.integers(12))
        content[place : place + 2] = struct.pack(">H", ODD[int(draw.integers(10))] & 0xFFFF)
    else:
        size = 2 + struct.unpack(">H", content[at + 2 : at + 4])[0]
        content[at:at] = content[at : at + size] * int(draw.integers(1, 9))
    return content


def small_header(content: bytearray, draw: Draw) -> bytearray:
    """Puts odd numbers in the first hundred bytes, where GIF, WebP, BMP, TIFF and AVIF keep sizes and lengths."""
    head = content[:100]
    for _ in range(int(draw.integers(1, 4))):
        head = odd_number(head, draw)
    return head + content[100:]


def parquet_footer(content: bytearray, draw: Draw) -> bytearray:
    """Damages the Thrift metadata alone, and keeps its length right where it changes."""
    size = struct.unpack("<I", content[-8:-4])[0] if len(content) > 12 else 0
    if not 0 < size <= len(content) - 12:
        return flip_bits(content, draw)
    footer = content[-8 - size : -8]
    change = (flip_bits, flip_bits, flip_bits, noise, delete, repeat, splice)[int(draw.integers(7))]
    footer = change(footer, draw)
    return content[: -8 - size] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def parquet_page(content: bytearray, draw: Draw) -> bytearray:
    """Damages what comes before the footer: page headers and pages."""
    size = struct.unpack("<I", content[-8:-4])[0] if len(content) > 12 else 0
    end = max(0, len(content) - 8 - size)
    body = content[:end]
    return (noise if draw.random() < 0.2 else flip_bits)(body, draw) + content[end:]


BLIND: tuple[Mutation, ...] = (flip_bits, truncate, delete, repeat, splice, noise, odd_number)
AIMED: dict[str, tuple[Mutation, ...]] = {
    "image": (small_header, png_chunk, jpeg_segment),
    "tar": (tar_header, tar_header, small_header),
    "parquet": (parquet_footer, parquet_footer, parquet_page),
}


def mutate(kind: str, content: bytes, draw: Draw) -> bytes:
    """``content`` after a change or two, half of them aimed at its format's headers."""
    changed = bytearray(content)
    for _ in range(1 + int(draw.random() < 0.3)):
        mutations = AIMED[kind] if draw.random() < 0.5 else BLIND
        changed = mutations[int(draw.integers(len(mutations)))](changed, draw)
    return bytes(changed)
