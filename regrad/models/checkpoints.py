"""What is in a weights file, told by its content: safetensors, PyTorch's format, an index of shards; no code is run.

Everything in it is flattened to dotted names, whatever dicts it lies in, with the metadata of modules that
``state_dict`` attaches. What is no weights is called what it is.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.storage import cache
from regrad.storage.impostors import impostor

CONVERT = (
    "convert it where its code is: torch.save(torch.load(FILE, weights_only=False).state_dict(), 'weights.pt'), with "
    "what in it is the network before .state_dict()"
)
_DEPTH = 8
_EXTRA = "_extra_state"  # what a module keeps beside tensors, of any type
_MOST_TRIES = 64
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch.save began before 2020
_PLAIN = {"list", "dict", "set", "frozenset", "tuple", "int", "float", "complex", "str", "bytes", "bytearray", "bool"}
_PLAIN |= {"object", "range", "slice"}
_RUNS_CODE = {
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "importlib",
    "runpy",
    "pty",
    "socket",
    "shutil",
    "ctypes",
    "code",
}
_SHOWN = 3
#: What a file may be instead, by how it begins.
_BEGINNINGS: tuple[tuple[tuple[bytes, ...], str], ...] = (
    ((b"\x1f\x8b",), "compressed by gzip: unpack it"),
    ((b"bzh",), "compressed by bzip2: unpack it"),
    ((b"\xfd7zxz",), "compressed by xz: unpack it"),
    ((b"\x28\xb5\x2f\xfd",), "compressed by zstd: unpack it"),
    ((b"7z\xbc\xaf", b"rar!"), "a packed archive: unpack it"),
    ((b"\x89hdf",), "HDF5, as Keras writes it: load it there and save a PyTorch state dict"),
    ((b"gguf",), "GGUF, quantised for llama.cpp: PyTorch weights are needed"),
    ((b"\x93numpy",), "a NumPy array, not a state dict"),
)


@dataclass
class Stored:
    """What a weights file holds.

    Attributes:
        what: its name, for messages.
        values: tensors and other leaves by their dotted names.
        folders: of each of them the dotted name of the dict that it lay in.
        metadata: what ``state_dict`` says of modules, by their dotted names.
        husks: the classes of what was not read, since only their code could.
    """

    what: str
    values: dict[str, Any] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    husks: tuple[str, ...] = ()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors by their dotted names."""
        return {name: value for name, value in self.values.items() if isinstance(value, Tensor)}


def read_weights(uri: str) -> Stored:
    """What ``uri`` holds, downloaded once a machine; nothing in the file is executed.

    Raises:
        UsageError: no such file, it is no weights, or only code could read them.
    """
    what = f"weights {storage.mask(uri)}"
    content = _content(uri, what)
    if content.lstrip()[:1] == b"{":
        return _sharded(content, uri, what)
    return _stored(content, what)


def _content(uri: str, what: str) -> bytes:
    try:
        return cache.read_cached(uri)
    except FileNotFoundError as error:
        raise UsageError(f"weights {error}") from error
    except RegradError as error:
        if isinstance(error.__cause__, IsADirectoryError):
            raise UsageError(f"{what}: is a folder; name the file in it, or the index of its shards") from error
        raise


def _stored(content: bytes, what: str) -> Stored:
    stored = Stored(what)
    if _is_safetensors(content):
        _flatten(_safetensors(content, what), stored)
        return stored
    _refuse_others(content, what)
    with warnings.catch_warnings(action="ignore"):  # about the protocol of what is refused anyway
        content_of_file, stored.husks = _torch(content, what)
    _flatten(content_of_file, stored)
    if not stored.tensors:
        kind = "a whole network, " if any(name.startswith("torch.nn.") for name in stored.husks) else ""
        raise UsageError(
            f"{what}: not readable without executing code ({kind}GLOBAL {_some(stored.husks)}); {CONVERT}"
            if stored.husks
            else f"{what}: not a state dict (a mapping of names to tensors)"
        )
    return stored


def _flatten(value: Any, stored: Stored, name: str = "", folder: str = "", depth: int = 0) -> None:
    if isinstance(value, Mapping) and depth < _DEPTH and not name.endswith(_EXTRA):
        for module, told in getattr(value, "_metadata", {}).items():
            stored.metadata[_joined(name, module)] = told
        for key, part in value.items():
            _flatten(part, stored, _joined(name, str(key)), name, depth + 1)
    elif name:
        stored.values[name], stored.folders[name] = value, folder


def _joined(name: str, part: str) -> str:
    return ".".join(filter(None, (name, part)))


# -- safetensors, whole and in shards ----------------------------------------------------------------------------------


def _is_safetensors(content: bytes) -> bool:
    return content[8:9] == b"{" and 2 <= int.from_bytes(content[:8], "little") <= 100_000_000


def _safetensors(content: bytes, what: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except Exception as error:
        cut = f"{len(content)} of {wanted} bytes" if (wanted := _safetensors_size(content)) > len(content) else ""
        why = f"is cut short: {cut}" if cut else f"damaged safetensors: {storage.reason(error)}"
        raise UsageError(f"{what}: {why}") from error


def _safetensors_size(content: bytes) -> int:
    """How many bytes the head of the file says there are; 0 where it cannot be read."""
    try:
        size = 8 + int.from_bytes(content[:8], "little")
        entries = json.loads(content[8:size])
        return size + max(entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__")
    except (ValueError, TypeError, KeyError, IndexError):
        return 0


def _sharded(content: bytes, uri: str, what: str) -> Stored:
    """All shards of the index ``content``."""
    try:
        index = json.loads(content)
        shards = sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(f"{what}: is JSON without a weight_map: settings perhaps, but no weights") from error
    stored = Stored(what)
    for shard in shards:
        if not isinstance(shard, str) or ".." in shard.split("/") or shard.startswith("/"):
            raise UsageError(f"{what}: its shard {shard!r} is not beside it")
        one = _stored(_content(storage.join(uri.rpartition("/")[0] or ".", shard), what), f"weights {shard}")
        stored.values |= one.values
        stored.folders |= one.folders
        stored.metadata |= one.metadata
    missing = [name for name in index["weight_map"] if name not in stored.values]
    if missing:
        raise UsageError(f"{what}: its shards have no {_some(missing)}, which it says they have")
    return stored


# -- PyTorch's own format ----------------------------------------------------------------------------------------------


class _Husk:
    """Stands for an object of a class that is not known to be harmless: it takes everything, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class _DictHusk(_Husk):
    """One of a kind of dict."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


class _ListHusk(_Husk):
    """One of a kind of list."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return []


def _torch(content: bytes, what: str) -> tuple[Any, tuple[str, ...]]:
    """The object in a file of ``torch.save``, and the classes whose objects are husks in it.

    Tensors and plain values are as they are; of anything else not even the class is imported.
    """
    husks: dict[str, type[_Husk]] = {}
    with contextlib.suppress(Exception):  # files of before 2020 cannot be asked
        husks |= dict.fromkeys(torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content)), _Husk)
    for _ in range(_MOST_TRIES):
        _refuse_code(husks, what)
        stubs: list[Any] = [(type(f"husk:{name}", (kind,), {}), name) for name, kind in husks.items()]
        try:
            with torch.serialization.safe_globals(stubs):
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), tuple(husks)
        except pickle.UnpicklingError as error:
            better = _another_husk(str(error))
            if better is None or husks.get(better[0]) is better[1]:
                named = [*husks, *([better[0]] if better else [])]
                why = f"GLOBAL {_some(named)}" if named else storage.reason(error)[:200]
                raise UsageError(f"{what}: not readable without executing code ({why}); {CONVERT}") from error
            husks[better[0]] = better[1]
        except Exception as error:
            raise UsageError(f"{what}: a damaged file of torch.save: {storage.reason(error)[:200]}") from error
    raise UsageError(f"{what}: not readable without executing code (GLOBAL {_some(tuple(husks))}); {CONVERT}")


def _another_husk(said: str) -> tuple[str, type[_Husk]] | None:
    """The class that torch stumbled over, by what it says, and what to put in its place."""
    if unknown := re.search(r"GLOBAL (\S+)", said):
        return unknown[1] if "." in unknown[1] else f"builtins.{unknown[1]}", _Husk
    if kept := re.search(r"Can only (SETITEM|append|extend).*husk:([\w.]+)", said):
        return kept[2], _DictHusk if kept[1] == "SETITEM" else _ListHusk
    return None


def _refuse_code(names: Iterable[str], what: str) -> None:
    """Refuse a file that names what runs code, though none of it would be: nothing of it is to be trusted."""
    for name in names:
        module, _, attribute = name.rpartition(".")
        if module.partition(".")[0] in _RUNS_CODE or (module == "builtins" and attribute not in _PLAIN):
            raise UsageError(
                f"{what}: not readable without executing code: it would call GLOBAL {name}; if you trust it, {CONVERT}"
            )


def _refuse_others(content: bytes, what: str) -> None:
    """Refuse what is no weights, and say what it is."""
    if not content:
        raise UsageError(f"{what}: is empty")
    if instead := impostor(content):
        raise UsageError(f"{what}: is {instead}")
    start = content[:512].lstrip().lower()
    for beginnings, words in _BEGINNINGS:
        if start.startswith(beginnings) or content.startswith(beginnings):
            raise UsageError(f"{what}: is {words}")
    if content[257:262] == b"ustar":
        raise UsageError(f"{what}: is a tar archive: unpack it, and name the file in it")
    if content[:2] == b"PK":
        _refuse_archive(content, what)
    elif content[:1] == b"\x80" and not content.startswith(_LEGACY):
        raise UsageError(f"{what}: not readable without executing code: a pickle that is not torch.save's; {CONVERT}")
    elif not content.startswith(_LEGACY):
        text = content[:512].decode("ascii", "replace")
        readable = all(letter.isprintable() or letter.isspace() for letter in text)
        begins = f": it is text, and begins {' '.join(text.split())[:40]!r}" if readable else ""
        raise UsageError(
            f"{what}: not readable without executing code: neither safetensors nor a file of torch.save{begins}"
        )


def _refuse_archive(content: bytes, what: str) -> None:
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except zipfile.BadZipFile as error:
        raise UsageError(f"{what}: is cut short or damaged ({len(content)} bytes)") from error
    leaves = [name.partition("/")[2] or name for name in names]
    if any(leaf.startswith("code/") for leaf in leaves) and "constants.pkl" in leaves:
        raise UsageError(
            f"{what}: is a TorchScript program: take its weights out: torch.save(torch.jit.load(FILE).state_dict(), "
            "'weights.pt')"
        )
    if any(leaf.endswith(("archive_format", "serialized_exported_program.json")) for leaf in (*names, *leaves)):
        raise UsageError(
            f"{what}: is a program of torch.export: take its weights out: "
            "torch.save(torch.export.load(FILE).state_dict, 'weights.pt')"
        )
    if "data.pkl" not in leaves:
        raise UsageError(f"{what}: is a zip archive of {_some(names)}: unpack it, and name the weights in it")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
