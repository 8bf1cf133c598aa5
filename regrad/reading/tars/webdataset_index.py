"""The index that NVIDIA DALI's ``wds2idx`` writes beside a WebDataset tar: its members without a pass over the tar.

After a line ``v1.2 SAMPLES`` there is one for each sample, with ``extension offset size name`` of each of its members.
It is believed only if it accounts for every byte of the tar, and if the headers that are looked at are what it says: an
index that leaves something out, or is older than the tar, would send readers into the middle of an image.
"""

from __future__ import annotations

import tarfile
from collections.abc import Sequence

from regrad import storage
from regrad.reading.formats import stem
from regrad.reading.samples import Shard

_VERSION = "v1.2"  # those before it have no names
_BLOCK = tarfile.BLOCKSIZE
_LOOKS = 16
_LOOK_BYTES = 2**12
_MAX_FILL_BYTES = 2**20


def indexed_members(shard: Shard) -> list[tarfile.TarInfo] | None:
    """The members as the index beside the tar has them, in order; None where there is none that can be believed.

    Raises:
        RegradError: the storage refused or failed.
    """
    folder, slash, _ = shard.uri.rpartition("/")
    try:
        text = storage.read_bytes(f"{folder}{slash}{stem(shard.uri)}.idx").decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    listed = _listed(text)
    if not listed or not _is_whole(shard, listed) or not _is_of(shard.uri, listed):
        return None
    return listed


def _listed(text: str) -> list[tarfile.TarInfo] | None:
    first, *lines = text.splitlines() or [""]
    if first.split() != [_VERSION, str(len(lines))]:
        return None
    listed = []
    for line in lines:
        words = line.split(" ")
        if len(words) % 4:  # of a name with a space
            return None
        for offset, size, name in zip(words[1::4], words[2::4], words[3::4], strict=True):
            member = tarfile.TarInfo(name)
            try:
                member.size, member.offset_data = int(size), int(offset)
            except ValueError:
                return None
            member.offset = member.offset_data - _BLOCK
            listed.append(member)
    return listed


def _is_whole(shard: Shard, listed: Sequence[tarfile.TarInfo]) -> bool:
    """Whether each member begins where the one before it ends, and nothing but zeros comes after the last."""
    end = 0
    for member in listed:
        if member.offset != end or member.size < 0:
            return False
        end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
    fill = shard.size - end
    if not 2 * _BLOCK <= fill <= _MAX_FILL_BYTES:
        return False
    shard.seek(end)
    return shard.read(fill) == bytes(fill)


def _is_of(uri: str, listed: Sequence[tarfile.TarInfo]) -> bool:
    """Whether the headers of some members, the last one's among them, say the same."""
    with Shard(uri, _LOOK_BYTES) as shard:
        for member in listed[:: -max(1, len(listed) // _LOOKS)]:
            shard.seek(member.offset)
            try:
                header = tarfile.TarInfo.frombuf(shard.read(_BLOCK), "utf-8", "backslashreplace")
            except tarfile.HeaderError:
                return False
            if (header.name, header.size, header.isreg()) != (member.name, member.size, True):
                return False
    return True
